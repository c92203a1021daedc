"""The settings of a training run as a TOML file, and what the command line says over it."""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from spec_convert.errors import UsageError
from spec_convert.training.recipes import RECIPES
from spec_convert.training.settings import CHAINS, PATHS, SOURCES, TrainSettings, option

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

KEYS = tuple(TrainSettings.model_fields)


def read_settings(file: Path | None, flags: Mapping[str, Any]) -> TrainSettings:
    """What ``file`` says, and the ``flags`` that are not None, which win over it.

    Relative paths in the file start from its folder, those of flags from the current one. Raises UsageError, which
    names the flag, or the file and its key.
    """
    said = _read(file) if file else {}
    given = {name: value for name, value in flags.items() if value is not None}
    try:
        return TrainSettings.model_validate(said | given)
    except ValidationError as error:
        raise _problem(error.errors()[0], file, given) from error


def as_toml(settings: TrainSettings) -> str:
    """A file of these settings: ``read_settings`` makes the same of it, in whatever folder it lies.

    What the recipe of the kind of draft decides is told in comments.
    """
    said = [f"{key} = {_value(value)}" for key, value in settings.model_dump(mode="json", exclude_none=True).items()]
    recipe = [f"# {key} = {text}" for key, text in _of_the_recipe(settings) if getattr(settings, key) is None]
    heading = ["", f"# As the recipe of {settings.draft} has it:"] if recipe else []
    return "\n".join(said + heading + recipe) + "\n"


def _of_the_recipe(settings: TrainSettings) -> Iterator[tuple[str, str]]:
    recipe = RECIPES[settings.draft]
    yield "lr", _value(recipe.lr)
    phases = [_value(phase.loss) + (f" until {phase.until:.0%}" if phase.until < 1 else "") for phase in recipe.phases]
    yield "loss", ", then ".join(phases)
    if settings.draft in CHAINS:
        yield "ttt_steps", _value(recipe.steps)
        yield "ttt_step_loss_decay", _value(recipe.decay)


def _value(value: str | float | list[Any]) -> str:
    """JSON is TOML for what settings hold, but for one character."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _read(file: Path) -> dict[str, Any]:
    try:
        with file.open("rb") as opened:
            said = tomllib.load(opened)
    except OSError as reason:
        raise UsageError(f"{file} cannot be read: {reason.strerror}", hint="name another --config") from reason
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as reason:
        hint = "`key = value`, a line each; spec-convert train --dump-config writes one"
        raise UsageError(f"{file} is not TOML: {reason}", hint=hint) from reason
    if unknown := [key for key in said if key not in KEYS]:
        near = get_close_matches(unknown[0].replace("-", "_"), KEYS, n=1, cutoff=0.5)
        meant = f"did you mean `{near[0]}`? " if near else ""
        raise UsageError(
            f"{file}: there is no key `{unknown[0]}`", hint=f"{meant}keys are the options of train, with _ for -"
        )
    return {key: _from(file.parent.absolute(), key, value) for key, value in said.items()}


def _from(folder: Path, key: str, value: object) -> object:
    """The value, with a path as seen from the file's folder; a source is one when it exists there."""
    if not isinstance(value, str) or not value or key not in PATHS + SOURCES:
        return value
    seen = folder / os.path.expanduser(value)
    return str(seen) if key in PATHS or value.startswith((".", "~")) or os.path.exists(seen) else value


def _problem(error: ErrorDetails, file: Path | None, given: Mapping[str, Any]) -> UsageError:
    key = str(error["loc"][0])
    if error["type"] == "missing":
        return UsageError(f"{option(key)} is not given", hint=f"add it, or `{key} = …` to the file of --config")
    place = option(key) if key in given else f"{file}: {key}"
    why = error["msg"].removeprefix("Value error, ").removeprefix("Input ")
    said = error["input"]
    return UsageError(
        f"{place}: {said if isinstance(said, str) else json.dumps(said, default=str)} {why}",
        hint="docs/training.md explains every setting",
    )
