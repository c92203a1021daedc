"""The hub for speculative-decoding drafts: any published checkpoint into one unified directory, proven right."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from spec_convert.checkout import IS_CHECKOUT, ROOT

if TYPE_CHECKING:
    from spec_convert.conversion import EagleConverter, convert
    from spec_convert.detection import detect
    from spec_convert.evaluation.evaluation import evaluate
    from spec_convert.models.load import load_draft
    from spec_convert.validation.validation import validate

__all__ = ["EagleConverter", "convert", "detect", "evaluate", "load_draft", "validate"]

_HOMES = {
    "EagleConverter": "spec_convert.conversion",
    "convert": "spec_convert.conversion",
    "detect": "spec_convert.detection",
    "evaluate": "spec_convert.evaluation.evaluation",
    "load_draft": "spec_convert.models.load",
    "validate": "spec_convert.validation.validation",
}

# In a checkout the parts `plugins`, `schemas` and `training` are folders beside this one. An installed package finds
# them without this; `python -m spec_convert` inside a checkout, whatever is installed, finds them because of it.
if IS_CHECKOUT:
    __path__.append(str(ROOT))


def __getattr__(name: str) -> Any:
    """The public names, imported when they are first asked for: `spec-convert --help` must not pay for them."""
    if name not in _HOMES:
        raise AttributeError(f"module 'spec_convert' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
