"""A third party's format with its bugs told as its own: neither the checkpoint's fault nor ours."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from dataclasses import replace
from functools import wraps
from typing import Any, TypeVar

from spec_convert.errors import SpecConvertError
from spec_convert.formats import Described, Format, Layout, Native, UnifiedType

Result = TypeVar("Result")

FIELDS: Mapping[str, type] = {
    "name": str, "title": str, "reference": str, "produces": str, "tables": Mapping, "flags": Set, "exports": tuple,
}  # fmt: skip
FUNCTIONS: Mapping[str, type] = {"features": Mapping, "layout": Layout, "describe": Described, "is_unified": bool}


class PluginFailed(SpecConvertError):
    """A plugin broke while it was at work. Its traceback is the cause."""

    def __init__(self, what: str, provider: str, reason: str) -> None:
        hint = (
            f"this is a bug of {provider}, not of the checkpoint: tell its author, with what SPEC_CONVERT_DEBUG=1 shows"
        )
        super().__init__(f"{what} (from {provider}) failed: {reason}", hint=hint)


def require_format(found: object) -> Format:
    """What a plugin returned, if it is a format. Raises TypeError when it is none, or one of its fields cannot be."""
    if not isinstance(found, Format):
        raise TypeError(f"spec_convert_formats() returned {found!r}, which is no Format")
    for field, kind in FIELDS.items():
        if not isinstance(value := getattr(found, field), kind):
            raise TypeError(f"{field} of format `{found.name}` is {value!r}, not of type {kind.__name__}")
    for field in ("recognise", *FUNCTIONS):
        if not callable(value := getattr(found, field)):
            raise TypeError(f"{field} of format `{found.name}` is {value!r}, not a function")
    if found.own_type is not None and found.own_type.name != found.produces:
        raise ValueError(
            f"format `{found.name}` produces `{found.produces}`, but its own_type is called `{found.own_type.name}`"
        )
    return found


def watched(fmt: Format, provider: str) -> Format:
    """The same format, whose functions raise PluginFailed for what only a bug raises or returns.

    `recognise` is left as it is: detection asks everybody, and leaves out who cannot answer.
    """

    def watch(name: str, function: Callable[..., Result], kind: type) -> Callable[..., Result]:
        return _watched(function, kind, f"`{name}` of format `{fmt.name}`", provider)

    functions: dict[str, Any] = {name: watch(name, getattr(fmt, name), kind) for name, kind in FUNCTIONS.items()}
    exports = tuple(replace(way, write=watch(f"export to {way.target}", way.write, Native)) for way in fmt.exports)
    own = fmt.own_type and _watched_type(fmt.own_type, watch)
    return replace(fmt, **functions, exports=exports, own_type=own)


def _watched_type(own: UnifiedType, watch: Callable[..., Callable[..., Any]]) -> UnifiedType:
    return replace(own, config=watch("own_type.config", own.config, type), trial=watch("trial", own.trial, object))


def _watched(function: Callable[..., Result], kind: type, what: str, provider: str) -> Callable[..., Result]:
    # Torch says by RuntimeError that shapes do not fit: whoever runs a trial takes it for the checkpoint's fault.
    passed = (SpecConvertError, RuntimeError) if kind is object else (SpecConvertError,)

    @wraps(function)
    def call(*args: Any, **named: Any) -> Result:
        try:
            result = function(*args, **named)
        except passed:
            raise
        except (Exception, SystemExit) as reason:
            raise PluginFailed(what, provider, f"{type(reason).__name__}: {reason}") from reason
        if not isinstance(result, kind):
            raise PluginFailed(what, provider, f"it returned {type(result).__name__}, not {kind.__name__}")
        return result

    return call
