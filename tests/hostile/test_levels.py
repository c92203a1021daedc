"""Each damaged fixture is found at the cheapest level of `validate` that can see its damage, and at every one above."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from spec_convert import validate
from spec_convert.findings import Depth, Finding, Level

LEVELS = [Depth.HEADERS, Depth.TENSORS, Depth.FORWARD]
# The level that first refuses, and the rule that does. No verifier is given: what needs one stands in NEEDS_VERIFIER.
FOUND_AT = {
    "config_empty_object": (Depth.HEADERS, "config-key-missing"),
    "config_is_a_list": (Depth.HEADERS, "config-unreadable"),
    "config_not_json": (Depth.HEADERS, "config-unreadable"),
    "config_zero_bytes": (Depth.HEADERS, "config-unreadable"),
    "d2t_contradicts_t2d": (Depth.HEADERS, "d2t-inconsistent"),
    "d2t_duplicate_targets": (Depth.HEADERS, "d2t-inconsistent"),
    "d2t_float": (Depth.HEADERS, "vocabulary-map-dtype"),
    "d2t_negative_target": (Depth.HEADERS, "d2t-inconsistent"),
    "d2t_out_of_range": (Depth.HEADERS, "d2t-inconsistent"),
    "git_lfs_pointer": (Depth.HEADERS, "git-lfs-pointer"),
    "heads_do_not_fit": (Depth.HEADERS, "wrong-shape"),
    "index_missing_shard": (Depth.HEADERS, "index-mismatch"),
    "index_path_traversal": (Depth.HEADERS, "index-mismatch"),
    "missing_lm_head_reduced_vocab": (Depth.HEADERS, "reduced-head-missing"),
    "missing_tensor": (Depth.HEADERS, "missing-tensor"),
    "missing_tensor_eagle3": (Depth.HEADERS, "missing-tensor"),
    "nan_in_weight": (Depth.TENSORS, "not-finite"),
    "no_weights": (Depth.HEADERS, "no-weights"),
    "pickle_named_safetensors_os_system": (Depth.HEADERS, "unsafe-pickle"),
    "pickle_os_system_legacy": (Depth.HEADERS, "unsafe-pickle"),
    "pickle_os_system_raw": (Depth.HEADERS, "unsafe-pickle"),
    "pickle_os_system_zip": (Depth.HEADERS, "unsafe-pickle"),
    "safetensors_header_length_huge": (Depth.HEADERS, "unreadable-container"),
    "safetensors_header_longer_than_file": (Depth.HEADERS, "unreadable-container"),
    "safetensors_overlapping_offsets": (Depth.HEADERS, "unreadable-container"),
    "safetensors_shape_bytes_mismatch": (Depth.HEADERS, "unreadable-container"),
    "safetensors_truncated": (Depth.HEADERS, "unreadable-container"),
    "wrong_shape": (Depth.HEADERS, "wrong-shape"),
}
NEEDS_VERIFIER = {"hidden_size_mismatch_verifier": (Depth.HEADERS, "verifier-mismatch")}
ACCEPTED = ["_control_eagle1", "_control_eagle3", "pickle_in_training_state", "torch_zip_named_safetensors"]


def errors(case: Path, level: Depth, *, verifier: bool = False) -> list[Finding]:
    report = validate(case / "checkpoint", level=level, verifier=case / "verifier" if verifier else None)
    return [finding for checked in report.checked for finding in checked.findings if finding.level is Level.ERROR]


def test_every_fixture_has_its_level(hostile: Path) -> None:
    refused = {case.parent.name for case in hostile.glob("*/expect.json") if '"refuse"' in case.read_text()}
    assert refused == {*FOUND_AT, *NEEDS_VERIFIER}
    assert {case.name for case in hostile.iterdir() if case.is_dir()} == {*FOUND_AT, *NEEDS_VERIFIER, *ACCEPTED}


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("case", FOUND_AT)
def test_damage_is_found_at_its_level_and_not_only_later(case: str, level: Depth, hostile: Path) -> None:
    first, rule = FOUND_AT[case]
    seen = {finding.rule for finding in errors(hostile / case, level)}
    assert seen == set() if LEVELS.index(level) < LEVELS.index(first) else rule in seen


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("case", NEEDS_VERIFIER)
def test_what_only_the_verifier_tells_is_found_with_it(case: str, level: Depth, hostile: Path) -> None:
    _, rule = NEEDS_VERIFIER[case]
    assert rule in {finding.rule for finding in errors(hostile / case, level, verifier=True)}
    assert errors(hostile / case, level) == []


@pytest.mark.parametrize("verifier", [False, True])
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("case", ACCEPTED)
def test_a_sound_one_has_no_error_at_any_level(case: str, level: Depth, verifier: bool, hostile: Path) -> None:
    assert errors(hostile / case, level, verifier=verifier) == []
    assert not list(Path().iterdir()), "a payload ran"


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("case", FOUND_AT)
def test_an_error_says_where_and_what_to_do(case: str, level: Depth, hostile: Path) -> None:
    for finding in errors(hostile / case, level):
        assert finding.where
        assert finding.message
        assert json.dumps(finding.to_json())
