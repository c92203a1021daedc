"""`spec-convert export`: what it says on which stream, its JSON, its exit codes, and where its choices come from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from spec_convert.registry import registry

KEYS = {
    "output", "target", "format", "tensors", "config", "findings", "exact", "changed", "seconds", "written",
}  # fmt: skip


@pytest.fixture
def unified(eagle3: Any) -> Path:
    return Path(eagle3().convert().output)


def test_an_export_is_narrated_and_summed_up_in_one_line(cli: Any, unified: Path, tmp_path: Path) -> None:
    ran = cli("export", unified, tmp_path / "out", "--to", "vllm")
    assert ran.code == 0
    assert ran.out.startswith(f"{tmp_path / 'out'}: eagle3-vllm for vllm, reads back bit by bit, ")
    lines = [line.removeprefix("INFO").strip() for line in ran.err.splitlines()]
    assert lines == [f"Exporting {unified} to vllm", f"Saved to: {tmp_path / 'out'}"]


def test_json_is_all_that_stdout_holds(cli: Any, unified: Path, tmp_path: Path) -> None:
    ran = cli("export", unified, tmp_path / "out", "--to", "sglang", "--json")
    assert ran.json.keys() == KEYS
    assert (ran.json["format"], ran.json["exact"], ran.json["written"]) == ("eagle3-specforge", True, True)


def test_what_was_changed_is_said_on_stderr_and_counted_on_stdout(cli: Any, eagle: Any, tmp_path: Path) -> None:
    draft = eagle()
    draft.tensors["fc.weight"][:, :16] = torch.eye(16)
    draft.tensors["fc.bias"] = torch.ones(16)
    ran = cli("export", draft.convert().output, tmp_path / "out", "--to", "vllm")
    assert "reads back with the changes that are noted" in ran.out
    assert "note: embed_tokens.weight: the fusion bias is folded into it" in ran.err
    assert "[export-changed]" in ran.err


def test_a_dry_run_shows_tensors_and_config_and_writes_nothing(cli: Any, unified: Path, unchanged: Any) -> None:
    unchanged()
    ran = cli("export", unified, unified.parent / "out", "--to", "safeai", "--dry-run")
    assert "copy  layers.0.hidden_norm.weight -> midlayer.hidden_norm.weight  F32 16" in ran.out
    assert '"LlamaForCausalLM"' in ran.out
    assert unchanged()


def test_a_refusal_has_its_reason_and_exit_code_one(cli: Any, eagle3: Any, tmp_path: Path) -> None:
    unified = eagle3(layers=2).convert().output
    ran = cli("export", unified, tmp_path / "out", "--to", "safeai", "--json")
    assert ran.code == 1
    assert "SafeAILab's EAGLE-3: it has one layer [export-not-representable]" in ran.err
    assert ran.json.keys() == KEYS
    assert (ran.json["output"], ran.json["written"]) == (None, False)
    assert [finding["rule"] for finding in ran.json["findings"]] == ["export-not-representable"]


def test_a_target_that_this_type_lacks_is_a_mistake_of_use(cli: Any, mlp: Any, tmp_path: Path) -> None:
    ran = cli("export", mlp().convert().output, tmp_path / "out", "--to", "sglang")
    assert ran.code == 2
    assert "there is no export of `eagle_mlp` drafts to `sglang`" in ran.err
    assert "hint: targets for this type: vllm" in ran.err


def test_an_unknown_target_is_a_mistake_of_use(cli: Any, unified: Path, tmp_path: Path) -> None:
    ran = cli("export", unified, tmp_path / "out", "--to", "tensorrt")
    assert ran.code == 2
    assert f"is not one of {', '.join(registry().targets)}" in ran.err


def test_the_targets_come_from_the_installed_formats(process: Any, plugin: Any) -> None:
    site = plugin(
        "mine",
        """
        from dataclasses import replace
        from spec_convert.formats import Export
        from spec_convert.hookspecs import hookimpl
        from spec_convert.registry import registry
        from spec_convert.plugins.eagle3 import EAGLE3

        @hookimpl
        def spec_convert_formats():
            return [replace(EAGLE3, name="mine", exports=(Export(target="my-server", of="eagle3", write=None),))]
        """,
    )
    ran = process("export", "--help", PYTHONPATH=site)
    assert "[my-server|safeai|sglang|speculators-0.6|vllm]" in ran.out


def test_force_replaces_an_output(cli: Any, unified: Path, tmp_path: Path) -> None:
    assert cli("export", unified, tmp_path / "out", "--to", "vllm").code == 0
    ran = cli("export", unified, tmp_path / "out", "--to", "vllm")
    assert (ran.code, "`--force` replaces it" in ran.err) == (2, True)
    assert cli("export", unified, tmp_path / "out", "--to", "safeai", "--force").code == 0
    assert json.loads((tmp_path / "out" / "config.json").read_text())["architectures"] == ["LlamaForCausalLM"]


def test_the_verifier_may_be_named(cli: Any, unified: Path, verifier: Path, tmp_path: Path) -> None:
    verifier.rename(tmp_path / "moved")
    assert cli("export", unified, tmp_path / "out", "--to", "vllm").code == 2
    assert cli("export", unified, tmp_path / "out", "--to", "vllm", "--verifier", tmp_path / "moved").code == 0


def test_weights_are_cast_on_request(cli: Any, unified: Path, tmp_path: Path) -> None:
    ran = cli("export", unified, tmp_path / "out", "--to", "vllm", "--dtype", "bfloat16", "--json")
    assert ran.json["config"]["torch_dtype"] == "bfloat16"


def test_a_checkpoint_that_is_not_unified_is_a_mistake_of_use(cli: Any, eagle3: Any, tmp_path: Path) -> None:
    ran = cli("export", eagle3().write(), tmp_path / "out", "--to", "vllm")
    assert ran.code == 2
    assert "hint: make it one first: `spec-convert convert SOURCE UNIFIED --verifier BASE`" in ran.err
