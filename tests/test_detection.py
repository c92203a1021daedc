"""Detection: every format is asked, a tie is never settled by chance, and a stranger is told why nobody took it."""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from spec_convert.checkpoint import Checkpoint
from spec_convert.detection import Detection, recognise
from spec_convert.errors import Refused, UsageError
from spec_convert.evidence import Evidence, weigh
from spec_convert.findings import Finding
from spec_convert.formats import Format
from spec_convert.hookspecs import hookimpl
from spec_convert.open import open_checkpoint
from spec_convert.plugins.eagle import EAGLE
from spec_convert.registry import Registry


class Provider:
    """A plugin object with formats that say what the test wants."""

    def __init__(self, **says: Evidence) -> None:
        self.says = says

    @hookimpl
    def spec_convert_formats(self) -> list[Format]:
        return [
            replace(
                EAGLE,
                name=name,
                title=f"Format {name}",
                recognise=lambda _, said=said: said,
                features=lambda _: {"seen": 1},
            )
            for name, said in self.says.items()
        ]


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Any:
    """`registry(acme=Provider(…), other=Provider(…))`: formats as plugins of these names bring them."""

    def make(**providers: Provider) -> Registry:
        monkeypatch.setattr(EntryPoint, "load", lambda self: providers[self.name])
        return Registry([EntryPoint(name, f"{name}_package", "spec_convert") for name in providers])

    return make


@pytest.fixture
def checkpoint(tmp_path: Path) -> Checkpoint:
    tensors = {f"blocks.{number}.w": np.zeros(1, np.float32) for number in range(6)}
    save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text('{"architectures": ["SomebodysDraft"]}')
    return open_checkpoint(tmp_path)


def sure(confidence: float) -> Evidence:
    return Evidence(supports=("a sign",), against=(), confidence=confidence, nearness=1.0)


def refusal(checkpoint: Checkpoint, registry: Registry) -> Finding:
    with pytest.raises(Refused) as refused:
        recognise(checkpoint, among=registry)
    (finding,) = refused.value.findings
    return finding


def test_the_surest_format_wins_whoever_was_asked_first(checkpoint: Checkpoint, registry: Any) -> None:
    one, other = Provider(a=sure(0.5), b=sure(0.75)), Provider(c=sure(0.0))
    for providers in ({"one": one, "other": other}, {"other": other, "one": one}):
        assert recognise(checkpoint, among=registry(**providers)).format == "b"


def test_two_that_fit_equally_well_are_refused_naming_who_brought_them(checkpoint: Checkpoint, registry: Any) -> None:
    known = registry(acme=Provider(mine=sure(0.75)), umbrella=Provider(theirs=sure(0.75), other=sure(0.5)))
    finding = refusal(checkpoint, known)
    assert finding.rule == "two-formats"
    assert "`mine` (from acme_package) and `theirs` (from umbrella_package)" in finding.message
    assert "`other`" not in finding.message
    assert "`spec-convert convert … --format mine`" in finding.hint


def test_a_stranger_is_told_what_was_seen_and_why_the_nearest_lost(checkpoint: Checkpoint, registry: Any) -> None:
    near = weigh(required={"a fusion": True, "a layer": True, "a norm": False})
    far = weigh(required={"a fusion": True, "a layer": False, "a norm": False})
    finding = refusal(checkpoint, registry(acme=Provider(near=near, zfar=far)))
    assert finding.rule == "unknown-format"
    assert "architecture SomebodysDraft" in finding.message
    assert "blocks.0.w, blocks.1.w, blocks.2.w, blocks.3.w, … (6 tensors)" in finding.message
    assert "the nearest is `near`, which fails on: not: a norm" in finding.message
    assert "`spec-convert convert … --format near`" in finding.hint


def test_without_any_format_installed_it_says_so(checkpoint: Checkpoint, registry: Any) -> None:
    finding = refusal(checkpoint, registry())
    assert (finding.rule, "no format is installed" in finding.message) == ("unknown-format", True)


def test_a_forced_format_is_taken_whatever_it_says(checkpoint: Checkpoint, registry: Any) -> None:
    known = registry(acme=Provider(mine=weigh(required={"a norm": False}), other=sure(1.0)))
    detection = recognise(checkpoint, among=known, forced="mine")
    assert (detection.format, detection.confidence) == ("mine", 0.0)
    assert detection.provider == "acme_package"


def test_a_forced_format_settles_a_tie(checkpoint: Checkpoint, registry: Any) -> None:
    known = registry(acme=Provider(mine=sure(0.75), other=sure(0.75)))
    assert recognise(checkpoint, among=known, forced="other").format == "other"


def test_a_forced_format_that_does_not_fit_is_a_warning_of_the_plan(eagle: Any) -> None:
    draft = eagle(bias=False)
    forced = draft.convert(format="hass").findings["format-forced"]
    assert forced.level == "warning"
    assert "`hass` fails on: not: a trained `fc.bias`" in forced.message
    assert "format-forced" not in draft.convert(format="eagle").findings


def test_a_forced_format_must_exist(checkpoint: Checkpoint, registry: Any) -> None:
    with pytest.raises(UsageError, match="there is no format `nobodys`"):
        recognise(checkpoint, among=registry(acme=Provider(mine=sure(1.0))), forced="nobodys")


def test_json_says_what_tells_and_what_else_it_may_be(checkpoint: Checkpoint, registry: Any) -> None:
    known = registry(acme=Provider(mine=sure(0.9), maybe=sure(0.5), never=sure(0.0)))
    detection: Detection = recognise(checkpoint, among=known)
    answer = detection.to_json()
    assert answer["format"] == "mine"
    assert answer["evidence"] == {"for": ["a sign"], "against": []}
    assert answer["features"] == {"seen": 1}
    assert answer["also_possible"] == {"maybe": 0.5}


def test_every_built_in_format_is_asked_and_only_one_takes_a_checkpoint(eagle: Any, eagle3: Any, mlp: Any) -> None:
    for make, name in ((eagle, "eagle"), (eagle3, "eagle3"), (mlp, "eagle-mlp")):
        detection = recognise(open_checkpoint(make().write()))
        assert detection.format == name
        assert [other for other, said in detection.asked.items() if said.confidence] == [name]
        for path in make().folder.iterdir():
            path.unlink()


def test_a_format_that_cannot_be_asked_is_left_out_and_named(checkpoint: Checkpoint, registry: Any) -> None:
    known = registry(acme=Provider(good=weigh(required={"a sign": True})), broken=Broken())
    detection = recognise(checkpoint, among=known)

    assert detection.format == "good"
    (finding,) = detection.findings
    assert (finding.rule, finding.level) == ("plugin-failed", "warning")
    assert finding.message == "`broken` (from broken_package) could not look: KeyError: 'a bug of theirs'"


def test_it_is_also_named_when_nobody_fits_or_several_do(checkpoint: Checkpoint, registry: Any) -> None:
    """The right format may be the one that failed."""
    fits, not_ = weigh(required={"a sign": True}), weigh(required={"a sign": False})
    for rule, others in {
        "unknown-format": {"acme": Provider(far=not_)},
        "two-formats": {"acme": Provider(one=fits), "other": Provider(two=fits)},
    }.items():
        with pytest.raises(Refused) as refused:
            recognise(checkpoint, among=registry(broken=Broken(), **others))
        assert [finding.rule for finding in refused.value.findings] == [rule, "plugin-failed"]


class Broken(Provider):
    """A plugin whose format raises when it is asked."""

    @hookimpl
    def spec_convert_formats(self) -> list[Format]:
        def fail(_: Checkpoint) -> Evidence:
            raise KeyError("a bug of theirs")

        return [replace(EAGLE, name="broken", recognise=fail)]
