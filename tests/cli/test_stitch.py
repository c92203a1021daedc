"""`spec-convert stitch`: what it says on which stream, and a document with the same keys however it ends."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from spec_convert import convert

from ..plugins.mtp_targets import EXTRACTED, write_target

KEYS = {"output", "target", "replaced", "findings", "seconds", "written"}


@pytest.fixture
def unified(tmp_path: Path) -> Path:
    target = write_target(tmp_path / "target", *EXTRACTED["qwen3.5"]())
    return convert(target, tmp_path / "unified", speculative_tokens=5).output


def test_it_says_how_to_serve_what_it_wrote(cli: Any, unified: Path, tmp_path: Path) -> None:
    ran = cli("stitch", unified, tmp_path / "stitched")
    assert ran.code == 0
    done, command = ran.out.splitlines()
    assert f"15 tensors of {tmp_path / 'target'} replaced" in done
    speculative = '{"method": "mtp", "num_speculative_tokens": 5}'
    assert command == f"vllm serve {tmp_path / 'stitched'} --speculative-config '{speculative}'"


def test_a_dry_run_names_the_tensors(cli: Any, unified: Path, tmp_path: Path) -> None:
    ran = cli("stitch", unified, tmp_path / "stitched", "--dry-run")
    assert "mtp.layers.0.self_attn.{q_norm" in ran.out or "mtp.layers.0.self_attn.q_norm.weight" in ran.out
    assert not (tmp_path / "stitched").exists()


def test_the_document_has_the_same_keys_however_it_ends(cli: Any, unified: Path, tmp_path: Path) -> None:
    done = cli("stitch", unified, tmp_path / "stitched", "--json")
    config = json.loads((unified / "config.json").read_text())
    config["transformer_layer_config"]["rms_norm_eps"] = 0.5
    (unified / "config.json").write_text(json.dumps(config))
    refused = cli("stitch", unified, tmp_path / "other", "--json")
    assert (done.code, refused.code) == (0, 1)
    assert done.json.keys() == refused.json.keys() == KEYS
    assert (done.json["written"], refused.json["written"], refused.json["replaced"]) == (True, False, [])


def test_serving_the_head_alone_says_what_to_do_instead(cli: Any, unified: Path) -> None:
    ran = cli("serve", unified, "--dry-run")
    assert ran.code == 2
    assert "inside their target alone" in ran.err
    assert "spec-convert stitch" in ran.err
    assert '"method": "mtp"' in ran.err


def test_there_is_no_export_of_it_but_the_way_back(cli: Any, unified: Path, tmp_path: Path) -> None:
    ran = cli("export", unified, tmp_path / "out", "--to", "vllm")
    assert ran.code == 2
    assert "spec-convert stitch" in ran.err
