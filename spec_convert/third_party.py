"""A third party's format with its bugs told as its own: neither the checkpoint's fault nor ours."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Set
from contextlib import contextmanager
from dataclasses import replace
from functools import wraps
from typing import Any

from spec_convert.errors import SpecConvertError
from spec_convert.findings import Finding, errors
from spec_convert.formats import Described, Export, Format, Layout, Native, Request, Unconverted, UnifiedType
from spec_convert.rules import found
from spec_convert.shapes import Known
from spec_convert.tensor_map import TensorMap

FIELDS: Mapping[str, type] = {
    "name": str, "title": str, "reference": str, "produces": str, "tables": Mapping, "flags": Set, "exports": tuple,
}  # fmt: skip
FUNCTIONS = ("recognise", "features", "layout", "describe", "is_unified")

Check = Callable[[Any], None]  # raises TypeError for what cannot be an answer


class PluginFailed(SpecConvertError):
    """A plugin broke while it was at work. Its traceback is the cause."""

    def __init__(self, what: str, provider: str, reason: str) -> None:
        blame = f"this is a bug of {provider}, not of the checkpoint: tell its author"
        super().__init__(
            f"{what} (from {provider}) failed: {reason}", hint=f"{blame}, with what SPEC_CONVERT_DEBUG=1 shows"
        )
        shows = "`SPEC_CONVERT_DEBUG=1 spec-convert convert … --validate` shows where"
        self.finding = found("plugin-bug", where=provider, message=f"{what} failed: {reason}", hint=f"{blame}; {shows}")


@contextmanager
def told_as_bug(what: str, provider: str, *, but: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """Whatever is raised inside is a bug of the provider, except for our own refusals and what ``but`` names."""
    ours: tuple[type[Exception], ...] = (SpecConvertError, *but)
    try:
        yield
    except ours:
        raise
    except (Exception, SystemExit) as reason:
        raise PluginFailed(what, provider, f"{type(reason).__name__}: {reason}") from reason


def own_model(own: UnifiedType, config: Mapping[str, Any], provider: str) -> tuple[Any, dict[str, Any]]:
    """The model that an own type makes of a config, and the config as the model writes it. Raises ValidationError."""
    from pydantic import ValidationError

    kind = own.config()
    with told_as_bug(f"the config model of `{own.name}`", provider, but=(ValidationError,)):
        model = kind.model_validate(config)
        written = model.model_dump(mode="json")
        _mapping(written)
    return model, written


def require_format(given: object) -> Format:
    """What a plugin returned, if it is a format. Raises TypeError or ValueError when one of its fields cannot be."""
    if not isinstance(given, Format):
        raise TypeError(f"spec_convert_formats() returned {given!r}, which is no Format")
    name = given.name
    for field, kind in FIELDS.items():
        _require(getattr(given, field), kind, f"{field} of format `{name}`")
    for title, table in given.tables.items():
        _require(table, TensorMap, f"tables[{title!r}] of format `{name}`")
    for way in given.exports:
        _require(way, Export, f"one of the exports of format `{name}`")
    for field in FUNCTIONS:
        _require_function(getattr(given, field), f"{field} of format `{name}`")
    if given.example is not None:
        _require_function(given.example, f"example of format `{name}`")
    if unknown := sorted(map(str, given.flags - Request.__dataclass_fields__.keys())):
        raise ValueError(f"format `{name}` heeds the flag `{unknown[0]}`, which is no field of Request")
    if given.unconverted is not None:
        _require(given.unconverted, Unconverted, f"unconverted of format `{name}`")
    if given.own_type is not None:
        _require_own_type(given.own_type, given)
    return given


def _require_own_type(own: object, fmt: Format) -> None:
    where = f"own_type of format `{fmt.name}`"
    if not isinstance(own, UnifiedType):
        raise TypeError(f"{where} is {own!r}, not of type UnifiedType")
    _require_function(own.config, f"config of the {where}")
    _require_function(own.trial, f"trial of the {where}")
    if own.name != fmt.produces:
        raise ValueError(f"format `{fmt.name}` produces `{fmt.produces}`, but its own_type is called `{own.name}`")


def _require(value: object, kind: type, what: str) -> None:
    if not isinstance(value, kind):
        raise TypeError(f"{what} is {value!r}, not of type {kind.__name__}")


def _require_function(value: object, what: str) -> None:
    if not callable(value):
        raise TypeError(f"{what} is {value!r}, not a function")


def watched(fmt: Format, provider: str) -> Format:
    """The same format, whose functions raise PluginFailed for what only a bug raises or returns.

    `recognise` is left as it is: detection asks everybody, and leaves out who cannot answer.
    """

    def watch(name: str, function: Callable[..., Any], check: Check) -> Callable[..., Any]:
        return _watched(function, check, f"`{name}` of format `{fmt.name}`", provider)

    checks: Mapping[str, Check] = {
        "features": _mapping, "layout": _layout, "describe": _described, "is_unified": _truth,
    }  # fmt: skip
    functions: dict[str, Any] = {name: watch(name, getattr(fmt, name), check) for name, check in checks.items()}
    exports = tuple(replace(way, write=watch(f"export to {way.target}", way.write, _native)) for way in fmt.exports)
    own = fmt.own_type
    if own is not None:
        # Torch says by RuntimeError that shapes do not fit: whoever runs a trial takes it for the checkpoint's fault.
        trial = _watched(own.trial, _tensor, f"`trial` of format `{fmt.name}`", provider, but=(RuntimeError,))
        own = replace(own, config=watch("own_type.config", own.config, _model_class), trial=trial)
    return replace(fmt, **functions, exports=exports, own_type=own)


def _watched(
    function: Callable[..., Any], check: Check, what: str, provider: str, *, but: tuple[type[Exception], ...] = ()
) -> Callable[..., Any]:
    @wraps(function)
    def call(*args: Any, **named: Any) -> Any:
        with told_as_bug(what, provider, but=but):
            answer = function(*args, **named)
        try:
            check(answer)
        except TypeError as reason:
            raise PluginFailed(what, provider, f"it returned {reason}") from reason
        return answer

    return call


def _answer(value: object, kind: type, part: str = "") -> None:
    if not isinstance(value, kind):
        raise TypeError(f"{part}{type(value).__name__}, not {kind.__name__}")


def _mapping(answer: object) -> None:
    _answer(answer, Mapping)


def _truth(answer: object) -> None:
    _answer(answer, bool)


def _layout(answer: Layout) -> None:
    _answer(answer, Layout)
    _table(answer)
    _findings(answer)


def _described(answer: Described) -> None:
    _answer(answer, Described)
    _findings(answer)
    if answer.config is not None:
        _answer(answer.config, Mapping, "a `config` that is ")
    elif not errors(answer.findings):
        raise TypeError("no `config`, and no error finding that says why")


def _native(answer: Native) -> None:
    _answer(answer, Native)
    _table(answer)
    _findings(answer)
    _answer(answer.config, Mapping, "a `config` that is ")


def _table(answer: Layout | Native) -> None:
    _answer(answer.table, TensorMap, "a `table` that is ")
    _answer(answer.sizes, Mapping, "`sizes` that are ")
    for name, size in answer.sizes.items():
        _answer(size, Known, f"`sizes` whose `{name}` is ")


def _findings(answer: Layout | Described | Native) -> None:
    _answer(answer.findings, tuple, "`findings` that are ")
    for finding in answer.findings:
        _answer(finding, Finding, "`findings` of which one is ")


def _model_class(answer: object) -> None:
    from pydantic import BaseModel

    if not (isinstance(answer, type) and issubclass(answer, BaseModel)):
        raise TypeError(f"{answer!r}, not a class of pydantic's BaseModel")


def _tensor(answer: object) -> None:
    import torch

    _answer(answer, torch.Tensor)
