"""The settings of `validate` that a project keeps in a file: `spec-convert.toml`, or a table of its pyproject.toml."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from spec_convert.errors import UsageError, unknown_name
from spec_convert.findings import Depth, Level
from spec_convert.rules import RULES
from spec_convert.validation.selection import Selection, matching

OWN, SHARED, TABLE = "spec-convert.toml", "pyproject.toml", "spec-convert"
OFF = "off"
SEVERITIES = (*(level.value for level in Level), OFF)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a settings file says; None where it says nothing. ``severity`` None: the rule is turned off."""

    file: Path | None = None
    level: str | None = None
    verifier: str | None = None
    strict: bool | None = None
    select: frozenset[str] | None = None
    ignore: frozenset[str] | None = None
    severity: Mapping[str, Level | None] = field(default_factory=dict)

    def selection(
        self, *, select: frozenset[str] | None, ignore: frozenset[str] | None, strict: bool | None
    ) -> Selection:
        """What is reported when the command line names these rules: it wins over the file.

        Rules that it selects are reported, even if the file leaves them out.
        """
        strict = bool(self.strict) if strict is None else strict
        if select is None:
            left_out = self.ignore or frozenset() if ignore is None else ignore
            return Selection(select=self.select, ignore=left_out, severity=self.severity, strict=strict)
        levels = {rule: level for rule, level in self.severity.items() if level is not None}
        return Selection(select=select, ignore=ignore or frozenset(), severity=levels, strict=strict)


def nearest_settings(folder: Path) -> Settings:
    """The settings of the nearest of ``folder`` and the folders above it that has some. Raises UsageError."""
    for place in (folder, *folder.parents):
        own, shared = place / OWN, place / SHARED
        if own.is_file():
            return _settings(own, _read(own), prefix="")
        if shared.is_file():
            tool = _read(shared).get("tool", {})
            if isinstance(tool, dict) and TABLE in tool:
                return _settings(shared, tool[TABLE], prefix=f"tool.{TABLE}")
    return Settings()


def _read(file: Path) -> dict[str, Any]:
    try:
        with file.open("rb") as opened:
            return tomllib.load(opened)
    except OSError as reason:
        raise UsageError(f"{file} cannot be read: {reason.strerror}", hint="--isolated does without it") from reason
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as reason:
        raise UsageError(f"{file} is not TOML: {reason}", hint="mend it; --isolated does without it") from reason


def _settings(file: Path, table: object, *, prefix: str) -> Settings:
    with _naming(f"{file}: {prefix}" if prefix else str(file)):
        said = _table(table)
        if unknown := sorted(said.keys() - KEYS.keys()):
            raise UsageError(f"there is no key `{unknown[0]}`", hint=_nearest(unknown[0], KEYS))
    values = {}
    for key, value in said.items():
        with _naming(f"{file}: {prefix}.{key}" if prefix else f"{file}: {key}"):
            values[key] = KEYS[key](value, file)
    return Settings(file=file, **values)


@contextmanager
def _naming(place: str) -> Iterator[None]:
    """Problems are said of this place in the file."""
    try:
        yield
    except UsageError as problem:
        raise UsageError(f"{place}: {problem.message}", hint=problem.hint) from problem


def _nearest(name: str, known: Collection[str]) -> str:
    near = get_close_matches(name, known, n=1)
    return (f"did you mean `{near[0]}`? " if near else "") + f"known are {', '.join(known)}"


def _table(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise UsageError(f"{value!r} is no table", hint="`key = value`, a line each")
    return value


def _level(value: object, file: Path) -> str:
    if value not in list(Depth):
        raise UsageError(f"there is no level {value!r}", hint=_nearest(str(value), list(Depth)))
    return str(value)


def _verifier(value: object, file: Path) -> str:
    """A folder is meant as seen from the file, wherever the command runs; what is none there is an id of the Hub."""
    if not isinstance(value, str) or not value:
        raise UsageError(f"{value!r} names no model", hint="a folder, or a Hub id such as org/name")
    if value.startswith("hf://"):
        return value
    folder = file.parent / Path(value).expanduser()
    if folder.exists() or value.startswith((".", "/", "~")):
        return str(folder)
    return f"hf://{value}"


def _strict(value: object, file: Path) -> bool:
    if not isinstance(value, bool):
        raise UsageError(f"{value!r} is neither true nor false", hint="strict = true makes warnings count as errors")
    return value


def _rules(value: object, file: Path) -> frozenset[str]:
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise UsageError(f"{value!r} is no list of rules", hint='for example ["rope-theta-absent", "flag-*"]')
    return matching(value)


def _selected(value: object, file: Path) -> frozenset[str]:
    if rules := _rules(value, file):
        return rules
    raise UsageError("nothing would be reported", hint="leave the key out to have all rules")


def _ignored(value: object, file: Path) -> frozenset[str]:
    return Selection(ignore=_rules(value, file)).ignore


def _severity(value: object, file: Path) -> Mapping[str, Level | None]:
    levels: dict[str, Level | None] = {}
    for rule, level in _table(value).items():
        if rule not in RULES:
            raise unknown_name("rule", rule, RULES, "spec-convert explain")
        if level not in SEVERITIES:
            raise UsageError(f"there is no severity {level!r} for `{rule}`", hint=_nearest(str(level), SEVERITIES))
        levels[rule] = None if level == OFF else Level(level)
    return Selection(severity=levels).severity


KEYS: Mapping[str, Callable[[object, Path], Any]] = {
    "level": _level,
    "verifier": _verifier,
    "strict": _strict,
    "select": _selected,
    "ignore": _ignored,
    "severity": _severity,
}
