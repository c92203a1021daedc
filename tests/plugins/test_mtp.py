"""MTP heads out of their targets: what is extracted, how little is read, and what is refused with its reason."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from spec_convert import convert, detect, validate
from spec_convert.errors import Refused, UsageError
from spec_convert.verifier import open_verifier

from .mtp_targets import EXPERTS, EXTRACTED, REFUSED, half, qwen3_5, qwen3_next, rest, write_target

Target = Callable[..., Path]


@pytest.fixture
def target(tmp_path: Path) -> Target:
    """`target("qwen3.5", **changes of config.json)`: in three files, of which the first holds nothing of the head."""

    def make(kind: str, **changes: Any) -> Path:
        config, tensors = (EXTRACTED | REFUSED)[kind]()
        return write_target(tmp_path / kind, config | changes, half(tensors))

    return make


def head_of(kind: str) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in half(EXTRACTED[kind]()[1]).items() if name.startswith("mtp.")}


@pytest.mark.parametrize("kind", [*EXTRACTED, *REFUSED])
def test_a_target_with_a_head_is_recognised(target: Target, kind: str) -> None:
    found = detect(target(kind))
    assert found.format == "mtp"
    assert found.confidence == 1
    assert found.features["inside_target"]


@pytest.mark.parametrize("kind", EXTRACTED)
def test_the_head_alone_comes_out_and_is_valid(target: Target, kind: str, tmp_path: Path) -> None:
    output = convert(target(kind), tmp_path / "unified", validate=True).output
    config = json.loads((output / "config.json").read_text())
    assert config["speculators_model_type"] == "mtp"
    assert config["architectures"] == ["MTPDraftModel"]
    assert config["speculators_config"]["verifier"]["name_or_path"] == str(tmp_path / kind)
    tensors = load_file(output / "model.safetensors")
    assert all(name.startswith("mtp_layers.0.") for name in tensors)
    head = head_of(kind)
    assert torch.equal(tensors["mtp_layers.0.input_proj.weight"], head["mtp.fc.weight"])
    assert torch.equal(tensors["mtp_layers.0.token_layernorm.weight"], head["mtp.pre_fc_norm_embedding.weight"])
    assert sum(t.numel() for t in tensors.values()) == sum(t.numel() for t in head.values())
    for level in ("tensors", "forward"):
        (checked,) = validate(output, level=level).checked
        assert [f for f in checked.findings if f.level != "note"] == []
        assert "served-inside-its-target" in {finding.rule for finding in checked.findings}


def test_experts_are_stacked_gate_above_up(target: Target, tmp_path: Path) -> None:
    tensors = load_file(convert(target("qwen3-next"), tmp_path / "unified").output / "model.safetensors")
    head, prefix = head_of("qwen3-next"), "mtp.layers.0.mlp.experts"
    for expert in range(EXPERTS):
        gate, up, down = (head[f"{prefix}.{expert}.{part}_proj.weight"] for part in ("gate", "up", "down"))
        assert torch.equal(tensors["mtp_layers.0.mlp.experts.gate_up_proj"][expert], torch.cat([gate, up]))
        assert torch.equal(tensors["mtp_layers.0.mlp.experts.down_proj"][expert], down)


def test_the_config_says_what_the_target_says(target: Target, tmp_path: Path) -> None:
    output = convert(target("qwen3-next"), tmp_path / "unified").output
    layer = json.loads((output / "config.json").read_text())["transformer_layer_config"]
    assert layer["layer_types"] == ["linear_attention"] * 3 + ["full_attention"] + ["linear_attention"] * 3 + [
        "full_attention"
    ]
    assert layer["rope_parameters"] == {"rope_theta": 1e7, "partial_rotary_factor": 0.5, "rope_type": "default"}
    assert (layer["num_hidden_layers"], layer["num_experts"], layer["norm_topk_prob"]) == (8, EXPERTS, True)


@pytest.mark.parametrize("tied", [True, False])
def test_whether_the_head_is_the_embedding_may_stand_outside(target: Target, tied: bool, tmp_path: Path) -> None:
    config, _ = qwen3_5()
    nested = {key: value for key, value in config["text_config"].items() if key != "tie_word_embeddings"}
    output = convert(target("qwen3.5", text_config=nested, tie_word_embeddings=tied), tmp_path / "unified").output
    layer = json.loads((output / "config.json").read_text())["transformer_layer_config"]
    assert layer["tie_word_embeddings"] is tied


def test_nothing_of_the_rest_is_read(target: Target, tmp_path: Path) -> None:
    """The first shard could not be read as weights: only its header is whole."""
    folder = target("qwen3.5")
    usual = convert(folder, tmp_path / "usual").output / "model.safetensors"
    first = folder / "model-00001-of-00003.safetensors"
    size = first.stat().st_size
    head = 8 + int.from_bytes(first.read_bytes()[:8], "little")
    os.truncate(first, head)
    os.truncate(first, size)  # a hole: the size that the header promises, and no numbers
    again = convert(folder, tmp_path / "again").output
    assert (again / "model.safetensors").read_bytes() == usual.read_bytes()
    source = json.loads((again / "conversion.json").read_text())["source"]
    assert source["sha256"].keys() == {"config.json", "model.safetensors.index.json"}
    assert source["sha256_of_tensors"].keys() == head_of("qwen3.5").keys()


def test_what_stays_in_a_large_target_is_counted(
    target: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("spec_convert.plan.MOST_LISTED", 3)
    record = convert(target("qwen3-next"), tmp_path / "unified").output / "conversion.json"
    dropped = json.loads(record.read_text())["tensors"]["dropped"]
    assert dropped == {"lm_head.weight and 4 more": "stays in the target"}


def test_a_file_of_the_head_alone_needs_its_target_named(target: Target, tmp_path: Path) -> None:
    config, tensors = qwen3_5()
    alone = write_target(
        tmp_path / "alone", config, {n: t for n, t in tensors.items() if n.startswith("mtp.")}, files=2
    )
    with pytest.raises(UsageError, match="does not say which model"):
        convert(alone, tmp_path / "unified")
    named = convert(alone, tmp_path / "unified", verifier=target("qwen3.5"))
    assert named.plan.config is not None
    assert open_verifier(tmp_path / "qwen3.5").name in json.dumps(named.plan.config)


@pytest.mark.parametrize(
    ("kind", "says"),
    {"deepseek": "eh_proj", "mimo": "biases of q, k and v", "ernie": "mtp_block"}.items(),
)
def test_heads_that_the_unified_type_cannot_hold_are_refused(
    target: Target, kind: str, says: str, tmp_path: Path
) -> None:
    with pytest.raises(Refused) as refused:
        convert(target(kind), tmp_path / "unified")
    (finding,) = refused.value.findings
    assert finding.rule == "not-representable"
    assert says in finding.message
    assert '"method": "mtp"' in finding.hint


@pytest.mark.parametrize(
    ("stranger", "says"),
    {
        "mtp.layers.1.input_layernorm.weight": "holds one MTP layer",
        "mtp.embed_tokens.weight": "shares the target's embedding",
        "mtp.layers.0.mlp.down_proj.weight_scale_inv": "quantised",
        "mtp.layers.0.self_attn.q_proj.bias": "no row",
    }.items(),
)
def test_a_head_with_more_in_it_is_refused(stranger: str, says: str, tmp_path: Path) -> None:
    config, tensors = qwen3_5()
    folder = write_target(tmp_path / "target", config, tensors | {stranger: torch.ones(16)})
    with pytest.raises(Refused, match=says):
        convert(folder, tmp_path / "unified")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"model_type": "exaone_moe"}, "no MTP layer of it"),
        ({"attention_bias": True}, "attention_bias"),
        ({"decoder_sparse_step": 2}, "decoder_sparse_step"),
        ({"mlp_only_layers": [0]}, "mlp_only_layers"),
        ({"rope_parameters": {"rope_type": "default", "rope_theta": 5.0, "partial_rotary_factor": 0.5}}, "two values"),
        ({"full_attention_interval": None}, "full_attention_interval"),
        ({"num_experts": EXPERTS + 1}, "experts"),
    ],
)
def test_a_config_that_means_another_layer_is_refused(
    changes: dict[str, Any], says: str, target: Target, tmp_path: Path
) -> None:
    with pytest.raises(Refused) as refused:
        convert(target("qwen3-next", **changes), tmp_path / "unified")
    assert any(says in f"{finding.message} {finding.where}" for finding in refused.value.findings)


@pytest.mark.parametrize(
    ("name", "says"),
    {
        "layers.61.eh_proj.weight": "eh_proj",
        "language_model.model.layers.61.eh_proj.weight": "eh_proj",
        "mtp.layers.0.norm.weight": "not known here",
        "mtp_layers.0.input_layernorm.weight": "not known here",
        "model.mtp.layers.0.norm.weight": "not known here",
    }.items(),
)
def test_heads_in_other_places_are_recognised_as_well(name: str, says: str, tmp_path: Path) -> None:
    config, _ = qwen3_next()
    folder = write_target(tmp_path / "target", config, rest() | {name: torch.ones(4)})
    assert detect(folder).format == "mtp"
    with pytest.raises(Refused, match=says):
        convert(folder, tmp_path / "unified")


def test_a_model_without_a_head_is_no_mtp(tmp_path: Path) -> None:
    config, _ = qwen3_next()
    with pytest.raises(Refused):
        detect(write_target(tmp_path / "plain", config, rest()))


@pytest.mark.parametrize("kind", EXTRACTED)
def test_a_unified_directory_reads_back_to_the_same_bytes(target: Target, kind: str, tmp_path: Path) -> None:
    first = convert(target(kind), tmp_path / "first", speculative_tokens=5).output
    again = convert(first, tmp_path / "again").output
    for name in ("config.json", "model.safetensors"):
        assert (first / name).read_bytes() == (again / name).read_bytes()


def test_what_the_library_leaves_out_the_target_tells(target: Target, tmp_path: Path) -> None:
    """It writes only what is not the default of its class."""
    first = convert(target("qwen3-next"), tmp_path / "first").output
    config = json.loads((first / "config.json").read_text())
    whole = config["transformer_layer_config"]
    config["transformer_layer_config"] = {k: v for k, v in whole.items() if k not in ("head_dim", "norm_topk_prob")}
    (first / "config.json").write_text(json.dumps(config))
    assert validate(first).has_errors
    assert not validate(first, verifier=tmp_path / "qwen3-next").has_errors
    again = convert(first, tmp_path / "again").output
    assert json.loads((again / "config.json").read_text())["transformer_layer_config"] == whole
