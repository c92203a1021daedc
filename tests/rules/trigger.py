"""How a rule of the catalogue is proven: a situation made for real, sound or broken in the one way that it is about."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

import spec_convert
from spec_convert.cli import run
from spec_convert.errors import Refused, Unreadable
from spec_convert.exporting import export as export_draft
from spec_convert.findings import Finding, Level

from ..tiny import Tiny

Findings = Sequence[Finding]


class Make:
    """What situations are made of: every fixture by its name (`make.eagle()`, `make.verifier`), made when asked for."""

    def __init__(self, request: pytest.FixtureRequest) -> None:
        self._fixture = request.getfixturevalue

    def __getattr__(self, name: str) -> Any:
        return self._fixture(name)


Trigger = Callable[[Make, bool], Findings]  # the second argument: broken, or sound in all but that


class Triggers(dict[str, Trigger]):
    """The triggers of one area of the catalogue, by rule."""

    def rule(self, code: str) -> Callable[[Trigger], Trigger]:
        """Marks the function below as what triggers this rule."""
        assert code not in self, f"{code} has a trigger already"

        def take(trigger: Trigger) -> Trigger:
            self[code] = trigger
            return trigger

        return take


def validate(source: Tiny | Path | str, **options: Any) -> Findings:
    """What `spec_convert.validate` finds."""
    (checked,) = spec_convert.validate(_path(source), **options).checked
    return checked.findings


def reported(make: Make, source: Tiny, *flags: str) -> Findings:
    """What the command `spec-convert validate` reports, which may set findings aside."""
    streams = make.capsys
    run(["validate", str(source.write()), "--isolated", "--format", "json", *flags])
    report = json.loads(streams.readouterr().out)
    words = ("rule", "where", "message", "hint")
    return [Finding(level=Level(one["level"]), **{word: one[word] for word in words}) for one in report["findings"]]


def convert(draft: Tiny, **flags: Any) -> Findings:
    """What a conversion says, whether it happens or is refused."""
    try:
        return draft.convert(**flags).conversion.findings
    except (Refused, Unreadable) as no:
        return no.findings


def export(unified: Path, *, to: str, **flags: Any) -> Findings:
    """What an export says, whether it happens or is refused."""
    try:
        return export_draft(unified, unified.parent / f"{unified.name}-for-{to}", to=to, **flags).findings
    except (Refused, Unreadable) as no:
        return no.findings


def unified(draft: Tiny, **flags: Any) -> Path:
    """The directory that converting ``draft`` gives."""
    return draft.convert(**flags).output


def edit(folder: Path, key: str, value: Any) -> Path:
    """Another value for a key of config.json (`a.b` is b inside a); an ellipsis takes the key out."""
    file = folder / "config.json"
    config = part = json.loads(file.read_text())
    *outer, key = key.split(".")
    for name in outer:
        part = part[name]
    part.pop(key, None)
    if value is not ...:
        part[key] = value
    file.write_text(json.dumps(config))
    return folder


def _path(source: Tiny | Path | str) -> Path | str:
    return source.write() if isinstance(source, Tiny) else source
