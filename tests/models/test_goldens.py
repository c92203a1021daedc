"""Our drafts against outputs that the original authors' code computed from the same files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from spec_convert.models.draft import Draft, VerifierTensors, build_draft
from spec_convert.unified import UNIFIED

FIXTURES = Path(__file__).parents[1] / "goldens" / "fixtures"
CASES = sorted(case.name for case in FIXTURES.iterdir() if case.is_dir())
EAGLE3 = [name for name in CASES if name.startswith("eagle3")]
# What the file computes in training is not what any server computes, and nothing in the file says so.
PLAIN = [name for name in CASES if name != "eagle3_modelopt_double_norm"]


@pytest.mark.parametrize("name", PLAIN)
def test_the_state_for_the_next_step_is_the_authors(name: str) -> None:
    case = Case(name)
    assert case.distance("hidden_states", case.golden["expected_hidden"]) <= case.tolerance


@pytest.mark.parametrize("name", PLAIN)
def test_the_logits_are_the_authors(name: str) -> None:
    case = Case(name)
    assert case.distance("logits", case.golden["expected_logits"]) <= case.tolerance


@pytest.mark.parametrize("name", [name for name in PLAIN if name in EAGLE3])
def test_the_second_step_is_the_authors(name: str) -> None:
    case = Case(name)
    case.golden["hidden_states"] = case.golden["expected_hidden"]
    assert case.distance("hidden_states", case.golden["step2_hidden"]) <= case.tolerance


@pytest.mark.parametrize("name", [name for name in PLAIN if name in EAGLE3])
def test_logits_lie_where_the_authors_put_them_in_the_target_vocabulary(name: str) -> None:
    case = Case(name)
    ours, theirs = case.draft.to_target_vocabulary(case.run().logits), case.golden["expected_logits_target"]
    assert torch.equal(ours.isinf(), theirs.isinf())
    assert distance(ours[~ours.isinf()], theirs[~ours.isinf()]) <= case.tolerance


def test_a_draft_trained_with_a_second_norm_is_another_function() -> None:
    case = Case("eagle3_modelopt_double_norm")
    assert case.distance("hidden_states", case.golden["expected_hidden"]) > 100 * case.tolerance


def test_dropping_the_fusion_bias_of_hass_is_what_we_do_not_do() -> None:
    case = Case("hass_llama3")
    assert case.distance("hidden_states", case.golden["dropped_bias_hidden"]) > 100 * case.tolerance


class Case:
    """One fixture: its golden values and our draft of its checkpoint."""

    def __init__(self, name: str) -> None:
        self.expect = json.loads((FIXTURES / name / "expect.json").read_text())
        self.tolerance: float = self.expect["tolerance"]
        self.golden = load_file(FIXTURES / name / "golden.safetensors")
        self.draft = draft_of(name, self.expect)

    @torch.no_grad()
    def run(self) -> Any:
        return self.draft(self.golden["input_ids"], self.golden["hidden_states"], self.golden["position_ids"])

    def distance(self, output: str, theirs: Tensor) -> float:
        return distance(getattr(self.run(), output), theirs)


def distance(ours: Tensor, theirs: Tensor) -> float:
    return (ours - theirs).abs().max().item()


def draft_of(name: str, expect: dict[str, Any]) -> Draft:
    """Each fixture as a unified config with renamed tensors, written out by hand for all of them."""
    root = FIXTURES / name / "checkpoint"
    source = json.loads((root / "config.json").read_text())
    source |= source.get("transformer_layer_config", {})
    tensors = {renamed(key): value for key, value in weights(root).items()}
    table = {key: value.float() for key, value in load_file(FIXTURES / name / "verifier/model.safetensors").items()}
    embedding = table["model.embed_tokens.weight"]
    verifier = VerifierTensors(embed_tokens=embedding, lm_head=table.get("lm_head.weight", embedding))
    if expect["format"] == "eagle-mlp":
        own = {"speculators_model_type": "eagle_mlp", "hidden_act": "relu", "layer_norm_eps": 1e-5}
        own |= {key: source[key] for key in ("hidden_size", "vocab_size", "mlp_layers")}
    elif name in EAGLE3:
        own = {
            "speculators_model_type": "eagle3",
            "draft_vocab_size": expect["draft_vocab_size"],
            "norm_before_residual": expect["norm_before_residual"],
            "norm_before_fc": False,
            "fc_norm": expect.get("fc_norm", False),
            "norm_output": expect["norm_output"],
            "target_hidden_size": expect.get("target_hidden_size"),
            "eagle_aux_hidden_state_layer_ids": expect["aux_layer_ids_expected_in_unified"],
            "embed_requires_grad": False,
            "transformer_layer_config": layer_config(source) | {"num_aux_hidden_states": 3},
        }
        if expect["draft_vocab_size"] == source["vocab_size"]:
            del tensors["d2t"], tensors["t2d"]
        elif "t2d" not in tensors:
            said = torch.arange(len(tensors["d2t"])) + tensors["d2t"]
            tensors["t2d"] = torch.zeros(source["vocab_size"], dtype=torch.bool).index_fill(0, said, True)
    else:
        after = "layers.0.input_layernorm.weight" in tensors
        own = {
            "speculators_model_type": "eagle",
            "fusion_bias": expect["fusion_bias"],
            "layernorms": expect["layernorms"],
            "layernorm_position": ("after_fusion" if after else "before_fusion") if expect["layernorms"] else None,
            "transformer_layer_architecture": "LlamaDecoderLayer",
            "transformer_layer_config": layer_config(source) | {"qkv_bias": source.get("qkv_bias", False)},
        }
    return build_draft(UNIFIED.validate_python(ENVELOPE | own), tensors, verifier)


def layer_config(source: dict[str, Any]) -> dict[str, Any]:
    heads = source["num_attention_heads"]
    same = ("hidden_size", "intermediate_size", "num_hidden_layers", "vocab_size", "hidden_act", "rms_norm_eps")
    return {
        "model_type": "llama",
        **{key: source[key] for key in (*same, "max_position_embeddings", "num_attention_heads")},
        "num_key_value_heads": source.get("num_key_value_heads", heads),
        "head_dim": source.get("head_dim", source["hidden_size"] // heads),
        "rope_theta": source.get("rope_theta", 10000.0),
        "rope_scaling": source.get("rope_scaling"),
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": False,
    }


def renamed(name: str) -> str:
    for old, new in RENAMES.items():
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name


def weights(root: Path) -> dict[str, Tensor]:
    """All tensors of a published checkpoint; floats as float32."""
    held: dict[str, Tensor] = {}
    for file in sorted(root.iterdir()):
        if file.suffix == ".safetensors":
            held |= load_file(file)
        elif file.suffix in (".bin", ".pt"):
            held |= torch.load(file, weights_only=True)
    return {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in held.items()}


RENAMES = {
    "midlayer.": "layers.0.",
    "transformer.": "layers.0.",
    "fusion_fc.": "fc.",
    "embedding_layernorm.": "embed_layernorm.",
    "pre_lm_head_layernorm.": "lm_head_layernorm.",
}
METHOD = {"proposal_type": "greedy", "speculative_tokens": 3, "verifier_accept_k": 1, "accept_tolerance": 0.0}
ENVELOPE = {
    "architectures": ["Draft"],
    "speculators_version": "0.9.0",
    "tie_word_embeddings": False,
    "torch_dtype": "float32",
    "speculators_config": {
        "algorithm": "eagle",
        "default_proposal_method": "greedy",
        "proposal_methods": [METHOD],
        "verifier": {"name_or_path": "verifier", "architectures": ["LlamaForCausalLM"]},
    },
}
