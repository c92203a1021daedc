"""`validate`: what each level finds, in native checkpoints and unified ones, and that problems are never exceptions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from spec_convert import validate
from spec_convert.errors import Unreadable, UsageError
from spec_convert.findings import Depth, Level, Report

Make = Callable[..., Any]
LEVELS = ("headers", "tensors", "forward")


def rules(report: Report, *, level: Level = Level.ERROR) -> list[str]:
    return [finding.rule for one in report.checked for finding in one.findings if finding.level is level]


@pytest.fixture
def unified(eagle3: Make) -> Path:
    return eagle3().convert().output


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("kind", ["eagle", "eagle3", "specforge", "mlp", "old_library"])
def test_a_sound_native_checkpoint_has_no_errors(kind: str, level: str, request: pytest.FixtureRequest) -> None:
    report = validate(request.getfixturevalue(kind)().write(), level=level)
    assert rules(report) == []


@pytest.mark.parametrize("level", LEVELS)
def test_a_unified_directory_is_clean(unified: Path, verifier: Path, level: str) -> None:
    report = validate(unified, verifier=verifier, level=level)
    assert [one.format for one in report.checked] == ["speculators"]
    assert [one.findings for one in report.checked] == [()]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_weight_that_is_not_finite_is_found_where_the_weights_are_read(eagle: Make, bad: float) -> None:
    draft = eagle()
    draft.tensors["fc.weight"][3, 3] = bad
    folder = draft.write()
    assert rules(validate(folder)) == []
    assert rules(validate(folder, level="tensors")) == ["not-finite"]
    assert rules(validate(folder, level="forward")) == ["not-finite"]


def test_a_tensor_that_is_dropped_may_hold_anything(eagle: Make) -> None:
    draft = eagle()
    draft.tensors["layers.0.self_attn.rotary_emb.inv_freq"] = torch.full((3,), float("nan"))
    assert rules(validate(draft.write(), level="tensors")) == []


def test_finite_weights_whose_logits_are_not_are_found_by_the_forward_pass(eagle: Make) -> None:
    draft = eagle()
    draft.tensors["fc.weight"] *= 1e38
    folder = draft.write()
    assert rules(validate(folder, level="tensors")) == []
    assert rules(validate(folder, level="forward")) == ["forward-not-finite"]


def test_a_scaling_that_no_draft_computes_is_found_by_the_forward_pass(eagle: Make) -> None:
    folder = eagle(rope_scaling={"rope_type": "spiral"}).write()
    assert rules(validate(folder, level="forward")) == ["forward-failed"]


def test_a_wrong_shape_is_found_at_every_level(eagle: Make) -> None:
    draft = eagle()
    draft.tensors["fc.weight"] = torch.ones(16, 31)
    draft.set(architectures=["LlamaForCausalLM"])
    folder = draft.write()
    assert all(rules(validate(folder, level=level)) for level in LEVELS)


@pytest.mark.parametrize(("key", "value"), [("hidden_size", 24), ("vocab_size", 64)])
def test_a_verifier_that_does_not_fit_is_found(unified: Path, make_verifier: Make, key: str, value: int) -> None:
    assert rules(validate(unified, verifier=make_verifier("other", **{key: value}))) == ["verifier-mismatch"]


def test_layer_ids_beyond_the_verifier_are_found(eagle3: Make, make_verifier: Make) -> None:
    unified = eagle3().convert(aux_layer_ids=[2, 4, 8]).output
    assert rules(validate(unified, verifier=make_verifier("shallow", num_hidden_layers=6))) == ["aux-layer-ids"]


def test_layer_ids_that_only_a_verifier_tells_are_no_error_without_one(eagle3: Make) -> None:
    report = validate(eagle3().write())
    assert rules(report) == []
    assert "aux-layer-ids-need-verifier" in rules(report, level=Level.NOTE)


def test_a_damaged_unified_config_is_found(unified: Path) -> None:
    config = unified / "config.json"
    config.write_text(config.read_text().replace('"norm_before_residual": false', '"norm_before_residual": "no"'))
    assert rules(validate(unified)) == ["config-key-invalid"]


@pytest.mark.parametrize("damage", ["absent", "empty", "not json", "truncated", "unknown"])
def test_what_cannot_be_read_is_a_finding(damage: str, eagle: Make, tmp_path: Path) -> None:
    folder = eagle().write()
    match damage:
        case "absent":
            folder = tmp_path / "nothing"
        case "empty":
            (folder / "model.safetensors").unlink()
        case "not json":
            (folder / "config.json").write_text("{")
        case "truncated":
            whole = (folder / "model.safetensors").read_bytes()
            (folder / "model.safetensors").write_bytes(whole[:-1])
        case "unknown":
            draft = eagle()
            draft.tensors = {"something": torch.ones(1)}
            folder = draft.write()
    report = validate(folder)
    assert len(rules(report)) == 1
    assert report.checked[0].format is None


def test_the_format_is_reported_although_the_checkpoint_is_refused(eagle: Make) -> None:
    report = validate(eagle(num_attention_heads=...).write())
    assert report.checked[0].format == "eagle"
    assert rules(report) == ["config-key-missing"]


def test_the_report_keeps_the_order_of_the_sources(eagle: Make, unified: Path, tmp_path: Path) -> None:
    sources = [unified, tmp_path / "nothing", eagle().write(), unified]
    report = validate(sources)
    assert [one.source for one in report.checked] == [str(source) for source in sources]
    assert [bool(one.findings) for one in report.checked] == [False, True, False, False]


def test_one_bad_source_makes_the_report_bad(unified: Path, tmp_path: Path) -> None:
    assert not validate([unified]).has_errors
    assert validate([unified, tmp_path / "nothing"]).has_errors


def test_an_unreadable_verifier_is_the_users_mistake(unified: Path, tmp_path: Path) -> None:
    with pytest.raises(Unreadable):
        validate(unified, verifier=tmp_path / "nothing")


def test_an_unknown_level_is_refused(unified: Path) -> None:
    with pytest.raises(UsageError, match="deepest"):
        validate(unified, level="deepest")


def test_validation_writes_nothing(unified: Path, tmp_path: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    validate(unified, level="forward")
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("kind", ["eagle", "eagle3", "specforge", "mlp", "old_library"])
def test_a_sound_checkpoint_is_looked_at_as_deep_as_was_asked(
    kind: str, level: str, request: pytest.FixtureRequest
) -> None:
    """Without a verifier too: EAGLE-3 computes the same whichever layers its states come from."""
    [checked] = validate(request.getfixturevalue(kind)().write(), level=level).checked
    assert (checked.reached, checked.missed, checked.unified) == (level, None, False)


@pytest.mark.parametrize("level", LEVELS)
def test_a_unified_directory_is_told_from_a_native_checkpoint(unified: Path, level: str) -> None:
    [checked] = validate(unified, level=level).checked
    assert (checked.reached, checked.missed, checked.unified) == (level, None, True)


def test_without_a_verifier_the_draft_runs_with_its_own_number_of_states(eagle3: Make) -> None:
    draft = eagle3(states=5)
    draft.tensors["fc.weight"] *= 1e38
    report = validate(draft.write(), level="forward")
    assert rules(report) == ["forward-not-finite"]
    assert report.checked[0].reached is Depth.FORWARD


def test_errors_in_the_layout_leave_the_headers_seen_in_part(eagle: Make) -> None:
    draft = eagle()
    draft.tensors["something.odd"] = torch.ones(3)
    [checked] = validate(draft.write(), level="forward").checked
    assert (checked.reached, checked.missed) == (Depth.TENSORS, Depth.HEADERS)


def test_errors_among_the_weights_end_the_look_before_the_draft_is_run(eagle: Make) -> None:
    draft = eagle()
    draft.tensors["fc.weight"][3, 3] = float("nan")
    [checked] = validate(draft.write(), level="forward").checked
    assert (checked.reached, checked.missed) == (Depth.TENSORS, Depth.FORWARD)


def test_of_what_cannot_be_read_no_level_is_reached(tmp_path: Path) -> None:
    [checked] = validate(tmp_path / "nothing", level="tensors").checked
    assert (checked.reached, checked.missed) == (None, Depth.HEADERS)
