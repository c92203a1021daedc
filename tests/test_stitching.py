"""An MTP head back into its target: the head is the draft's to the last byte, and everything else the target's."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from spec_convert import convert, detect
from spec_convert.errors import Refused, UsageError
from spec_convert.stitching import stitch

from .plugins.mtp_targets import EXTRACTED, half, write_target

KINDS = list(EXTRACTED)
UNTOUCHED, INDEX = "model-00001-of-00003.safetensors", "model.safetensors.index.json"


@pytest.fixture
def target(tmp_path: Path) -> Callable[[str], Path]:
    def make(kind: str) -> Path:
        config, tensors = EXTRACTED[kind]()
        return write_target(tmp_path / "target", config, half(tensors))

    return make


@pytest.fixture
def unified(target: Callable[[str], Path], tmp_path: Path) -> Callable[..., Path]:
    """`unified("qwen3.5", tuned=True)`: the head of that target, or with every number another one."""

    def make(kind: str, *, tuned: bool = False) -> Path:
        output = convert(target(kind), tmp_path / "unified", speculative_tokens=5).output
        if tuned:
            held = load_file(output / "model.safetensors")
            save_file({name: tensor + 1 for name, tensor in held.items()}, output / "model.safetensors")
        return output

    return make


def tensors_of(folder: Path) -> dict[str, Tensor]:
    return {name: t for file in sorted(folder.glob("model-*.safetensors")) for name, t in load_file(file).items()}


def files_of(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.name != "conversion.json"}


@pytest.mark.parametrize("kind", KINDS)
def test_out_and_back_is_the_target_byte_by_byte(unified: Callable[..., Path], kind: str, tmp_path: Path) -> None:
    stitched = stitch(unified(kind), tmp_path / "stitched")
    assert files_of(stitched.output) == files_of(tmp_path / "target")


@pytest.mark.parametrize("kind", KINDS)
def test_a_tuned_head_takes_the_place_of_the_old_one_and_of_nothing_else(
    unified: Callable[..., Path], kind: str, tmp_path: Path
) -> None:
    done = stitch(unified(kind, tuned=True), tmp_path / "stitched")
    before, after = tensors_of(tmp_path / "target"), tensors_of(tmp_path / "stitched")
    assert before.keys() == after.keys()
    assert set(done.replaced) == {name for name in before if name.startswith("mtp.")}
    for name, tensor in before.items():
        assert torch.equal(after[name], tensor + 1 if name in done.replaced else tensor)
    record = json.loads((done.output / "conversion.json").read_text())
    assert {moved["target"] for moved in record["tensors"]["moved"]} == set(done.replaced)
    assert detect(done.output).format == "mtp"


def test_untouched_weights_are_links_and_small_files_are_not(unified: Callable[..., Path], tmp_path: Path) -> None:
    stitch(unified("qwen3.5"), tmp_path / "stitched")
    for name, linked in {UNTOUCHED: True, INDEX: False, "config.json": False}.items():
        assert os.path.samefile(tmp_path / "target" / name, tmp_path / "stitched" / name) == linked


def test_where_no_link_can_be_made_they_are_copied(
    unified: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def elsewhere(*args: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    draft = unified("qwen3.5")
    monkeypatch.setattr(os, "link", elsewhere)
    stitch(draft, tmp_path / "stitched")
    assert files_of(tmp_path / "stitched") == files_of(tmp_path / "target")


def test_the_target_itself_is_never_changed(unified: Callable[..., Path], tmp_path: Path) -> None:
    draft = unified("qwen3-next", tuned=True)
    before = files_of(tmp_path / "target")
    stitch(draft, tmp_path / "stitched")
    assert files_of(tmp_path / "target") == before
    with pytest.raises(UsageError, match="holds"):
        stitch(draft, tmp_path / "target", force=True)


def test_a_split_draft_is_stitched_as_well(unified: Callable[..., Path], tmp_path: Path) -> None:
    split = convert(unified("qwen3-next"), tmp_path / "split", max_shard_size=2000).output
    assert len(list(split.glob("model-*.safetensors"))) > 1
    stitch(split, tmp_path / "stitched")
    assert files_of(tmp_path / "stitched") == files_of(tmp_path / "target")


def test_a_dry_run_writes_nothing(unified: Callable[..., Path], tmp_path: Path) -> None:
    done = stitch(unified("qwen3.5"), tmp_path / "stitched", dry_run=True)
    assert "mtp.fc.weight" in done.replaced
    assert not (tmp_path / "stitched").exists()


def cast(draft: Path) -> None:
    held = load_file(draft / "model.safetensors")
    save_file({name: tensor.float() for name, tensor in held.items()}, draft / "model.safetensors")


def other_epsilon(draft: Path) -> None:
    config = json.loads((draft / "config.json").read_text())
    config["transformer_layer_config"]["rms_norm_eps"] = 1e-5
    (draft / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(("spoil", "where"), [(cast, "mtp.fc.weight"), (other_epsilon, "rms_norm_eps")])
def test_what_does_not_fit_is_refused(
    spoil: Callable[[Path], None], where: str, unified: Callable[..., Path], tmp_path: Path
) -> None:
    draft = unified("qwen3.5")
    spoil(draft)
    with pytest.raises(Refused) as refused:
        stitch(draft, tmp_path / "stitched")
    assert {finding.rule for finding in refused.value.findings} == {"stitch-mismatch"}
    assert any(where in finding.where for finding in refused.value.findings)
    assert not (tmp_path / "stitched").exists()


def test_numbers_that_are_none_are_refused(unified: Callable[..., Path], tmp_path: Path) -> None:
    draft = unified("qwen3.5")
    held = load_file(draft / "model.safetensors")
    held["mtp_layers.0.input_proj.weight"][0, 0] = torch.nan
    save_file(held, draft / "model.safetensors")
    with pytest.raises(Refused, match="NaN"):
        stitch(draft, tmp_path / "stitched")
    assert not (tmp_path / "stitched").exists()


def test_a_target_without_a_head_and_a_draft_of_another_type_are_refused(
    unified: Callable[..., Path], eagle3: Callable[..., Any], tmp_path: Path
) -> None:
    other = eagle3()
    with pytest.raises(UsageError, match="no unified directory"):
        stitch(other.write(), tmp_path / "stitched")
    with pytest.raises(UsageError, match="no unified directory"):
        stitch(unified("qwen3.5").parent / "target", tmp_path / "stitched")
    headless = write_target(tmp_path / "headless", *_without_head())
    with pytest.raises((UsageError, Refused)):
        stitch(tmp_path / "unified", tmp_path / "stitched", verifier=headless)
    assert not (tmp_path / "stitched").exists()


def _without_head() -> tuple[dict[str, Any], dict[str, Tensor]]:
    config, tensors = EXTRACTED["qwen3.5"]()
    return config, {name: tensor for name, tensor in tensors.items() if not name.startswith("mtp.")}
