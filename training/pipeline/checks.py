"""What the options of a verb do not tell its command, and the verb would refuse only after hours of other stages."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from spec_convert.errors import UsageError
from spec_convert.evaluation.rows import hub_dataset

if TYPE_CHECKING:
    from spec_convert.training.settings import TrainSettings


def train_settings(params: Mapping[str, Any]) -> TrainSettings:
    """Raises UsageError when they contradict each other."""
    from spec_convert.training.settings import TrainSettings
    from spec_convert.training.settings_file import read_settings

    flags = {name: value for name, value in params.items() if name in TrainSettings.model_fields}
    return read_settings(None, {**flags, "logger": flags["logger"] or None})


def _train(params: Mapping[str, Any]) -> None:
    from spec_convert.training.drafts.reading import read_shape

    try:
        settings = train_settings(params)
        if settings.draft_config:
            read_shape(settings.draft_config)
    except UsageError as problem:
        raise UsageError(f"[train]: {problem.message}", hint=problem.hint) from problem


def _validate(params: Mapping[str, Any]) -> None:
    from spec_convert.findings import Depth
    from spec_convert.validation.acceptance import ASKED, require_complete

    try:
        require_complete(Depth(params["level"]), **{name: params[name] for name in ASKED})
    except UsageError as problem:
        raise UsageError(f"[validate]: {problem.message}", hint=problem.hint) from problem
    _prompts(params)


def _prompts(params: Mapping[str, Any]) -> None:
    if params["prompts"] is not None:
        hub_dataset(params["prompts"])


CHECKS: Mapping[str, Callable[[Mapping[str, Any]], None]] = {
    "train": _train,
    "validate": _validate,
    "evaluate": _prompts,
}
