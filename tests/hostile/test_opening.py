"""Hostile checkpoints whose damage is in a file: refused when they are opened, and no payload runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from spec_convert.errors import Unreadable
from spec_convert.open import open_checkpoint

REFUSED = {
    "config_is_a_list": "config-unreadable",
    "config_not_json": "config-unreadable",
    "config_zero_bytes": "config-unreadable",
    "git_lfs_pointer": "git-lfs-pointer",
    "index_missing_shard": "index-mismatch",
    "index_path_traversal": "index-mismatch",
    "no_weights": "no-weights",
    "pickle_named_safetensors_os_system": "unsafe-pickle",
    "pickle_os_system_legacy": "unsafe-pickle",
    "pickle_os_system_raw": "unsafe-pickle",
    "pickle_os_system_zip": "unsafe-pickle",
    "safetensors_header_length_huge": "unreadable-container",
    "safetensors_header_longer_than_file": "unreadable-container",
    "safetensors_overlapping_offsets": "unreadable-container",
    "safetensors_shape_bytes_mismatch": "unreadable-container",
    "safetensors_truncated": "unreadable-container",
}
OPENED = ["_control_eagle1", "_control_eagle3", "pickle_in_training_state", "torch_zip_named_safetensors"]


@pytest.mark.parametrize("case", REFUSED)
def test_a_damaged_file_is_refused_when_it_is_opened(case: str, hostile: Path) -> None:
    assert json.loads((hostile / case / "expect.json").read_text())["must"] == "refuse"
    with pytest.raises(Unreadable) as caught:
        open_checkpoint(hostile / case / "checkpoint")
    assert caught.value.finding.rule == REFUSED[case]
    assert caught.value.hint
    assert not list(Path().iterdir()), "a payload ran"


@pytest.mark.parametrize("case", OPENED)
def test_a_sound_file_is_opened_and_nothing_beside_it_runs(case: str, hostile: Path) -> None:
    checkpoint = open_checkpoint(hostile / case / "checkpoint")
    assert checkpoint.config
    for name in checkpoint:
        assert checkpoint.read(name).shape == checkpoint.shape(name)
    assert not list(Path().iterdir()), "a payload ran"


@pytest.mark.parametrize("case", [case for case in REFUSED if case.startswith("pickle")])
def test_a_pickle_that_calls_a_program_is_refused_by_its_name(case: str, hostile: Path) -> None:
    with pytest.raises(Unreadable, match=r"wants to call (posix|nt)\.system"):
        open_checkpoint(hostile / case / "checkpoint")
