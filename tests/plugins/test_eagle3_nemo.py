"""NeMo Automodel's EAGLE-3: behind its prefix, in the config of its verifier, read as its own code reads it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from spec_convert import detect

from ..tiny import Tiny, behind_model

Make = Callable[..., Tiny]
QWEN3 = {"model_type": "qwen3", "num_hidden_layers": 8, "head_dim": 6, "target_hidden_size": 16}


@pytest.fixture
def nemo(eagle3: Make) -> Make:
    """Of a Qwen3 verifier, as current releases write it."""

    def make(**changes: Any) -> Tiny:
        said = {"fc_norm": False, "norm_output": False, "parallel_drafting": False, "tie_word_embeddings": False}
        draft = eagle3(**{"prefix": "layers.0.", "architectures": ["LlamaEagle3DraftModel"]} | QWEN3 | said | changes)
        draft.tensors = behind_model(draft.tensors)
        return draft

    return make


def with_norms(draft: Tiny) -> Tiny:
    draft.tensors |= {f"model.fc_norm.{number}.weight": torch.full((16,), number + 1.0) for number in range(3)}
    return draft


def exported(draft: Tiny) -> Tiny:
    """What NeMo writes for vLLM: its names without the prefix, its architecture vLLM's."""
    draft.tensors = {name.removeprefix("model."): tensor for name, tensor in draft.tensors.items()}
    return draft.set(architectures=["LlamaForCausalLMEagle3"])


def test_its_names_lose_the_prefix(nemo: Make) -> None:
    draft = nemo()
    written = draft.convert(validate=True)
    assert all(torch.equal(written.tensors[name.removeprefix("model.")], t) for name, t in draft.tensors.items())


def test_it_is_a_llama_of_one_layer_whatever_its_verifier_is(nemo: Make) -> None:
    converted = nemo().convert()
    assert (converted.layer["model_type"], converted.layer["num_hidden_layers"]) == ("llama", 1)
    assert not {"layer-count-differs"} & set(converted.findings)


def test_its_default_layers_count_outputs(nemo: Make) -> None:
    assert nemo().convert().config["eagle_aux_hidden_state_layer_ids"] == [2, 4, 5]


@pytest.mark.parametrize("output", [False, True])
def test_norm_output_means_what_servers_mean(nemo: Make, output: bool) -> None:
    assert nemo(norm_output=output).convert().config["norm_output"] is output


def test_before_eagle31_nothing_was_normed(nemo: Make) -> None:
    config = nemo(fc_norm=..., norm_output=..., parallel_drafting=...).convert().config
    assert (config["fc_norm"], config["norm_output"]) == (False, False)


def test_one_of_the_two_keys_of_eagle31_alone_is_refused(nemo: Make) -> None:
    assert "`norm_output`" in with_norms(nemo(fc_norm=True, norm_output=...)).refusal()["config-key-missing"].message


def test_a_norm_for_each_state_is_kept(nemo: Make) -> None:
    converted = with_norms(nemo(fc_norm=True, norm_output=True)).convert(validate=True)
    assert converted.config["fc_norm"] is True
    assert [converted.tensors[f"fc_norm.{number}.weight"][0] for number in range(3)] == [1.0, 2.0, 3.0]


@pytest.mark.parametrize("verifiers", [
    {"layer_types": ["sliding_attention", "full_attention"] * 4}, {"use_sliding_window": True},
    {"query_pre_attn_scalar": 256, "final_logit_softcapping": 30.0}, {"embedding_multiplier": 12},
])  # fmt: skip
def test_what_its_code_passes_over_is_the_verifiers(nemo: Make, verifiers: dict[str, Any]) -> None:
    layer = nemo(**verifiers).convert().layer
    assert not verifiers.keys() & layer.keys()
    assert layer["num_hidden_layers"] == 1


@pytest.mark.parametrize(("verifiers", "word"), [
    ({"hidden_act": "gelu_pytorch_tanh"}, "silu"),
    ({"partial_rotary_factor": 0.75}, "partial_rotary_factor"),
    ({"quantization_config": {"quant_method": "fp8"}}, "quantization_config"),
])  # fmt: skip
def test_what_its_code_reads_and_nobody_serves_is_refused(nemo: Make, verifiers: dict[str, Any], word: str) -> None:
    assert word in nemo(**verifiers).refusal()["not-representable"].message


def test_rope_is_read_in_the_verifiers_spelling(nemo: Make) -> None:
    nested = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 512, "rope_theta": 1e6}
    layer = nemo(rope_theta=..., rope_parameters=nested).convert().layer
    assert layer["rope_theta"] == 1e6
    assert layer["rope_scaling"] == {key: value for key, value in nested.items() if key != "rope_theta"}


def test_rope_by_kind_of_layer_is_refused(nemo: Make) -> None:
    kinds = {"full_attention": {"rope_type": "default", "rope_theta": 1e6}, "sliding_attention": {"rope_theta": 1e4}}
    assert "full_attention" in nemo(rope_theta=..., rope_parameters=kinds).refusal()["config-key-invalid"].message


def test_without_its_map_servers_would_take_the_first_tokens(nemo: Make) -> None:
    draft = nemo()
    del draft.tensors["d2t"], draft.tensors["t2d"]
    refusal = draft.refusal()["d2t-missing"]
    assert "servers would take the first tokens" in refusal.message
    assert "eagle_meta.pt" in refusal.message
    assert "selected_token_ids" in refusal.hint


def test_a_full_vocabulary_needs_no_map(nemo: Make) -> None:
    draft = nemo(draft_vocab_size=32)
    del draft.tensors["d2t"], draft.tensors["t2d"]
    draft.tensors["lm_head.weight"] = torch.randn(32, 16)
    assert draft.convert(validate=True).config["draft_vocab_size"] == 32


@pytest.mark.parametrize("vocabulary", [20, 32])
def test_a_head_that_an_inherited_tie_left_out_is_missed(nemo: Make, vocabulary: int) -> None:
    draft = nemo(draft_vocab_size=vocabulary, tie_word_embeddings=True)
    del draft.tensors["lm_head.weight"]
    if vocabulary == 32:
        del draft.tensors["d2t"], draft.tensors["t2d"]
    rule = "reduced-head-missing" if vocabulary == 20 else "missing-tensor"
    assert draft.refusal()[rule].where == "lm_head.weight"


def test_biases_in_its_attention_are_kept_as_drafts_for_gpt_oss_have_them(nemo: Make) -> None:
    draft = nemo(model_type="gpt_oss", attention_bias=True)
    rows = {"q": 24, "k": 12, "v": 12, "o": 16}
    draft.tensors |= {f"model.layers.0.self_attn.{part}_proj.bias": torch.randn(n) for part, n in rows.items()}
    converted = draft.convert(validate=True)
    assert converted.layer["attention_bias"] is True
    assert torch.equal(
        converted.tensors["layers.0.self_attn.o_proj.bias"], draft.tensors["model.layers.0.self_attn.o_proj.bias"]
    )


def test_norms_on_queries_and_keys_are_nothing_of_its_own(nemo: Make) -> None:
    draft = nemo()
    draft.tensors |= {f"model.layers.0.self_attn.{norm}.weight": torch.ones(6) for norm in ("q_norm", "k_norm")}
    assert "unclaimed-tensor" in draft.refusal()


def test_a_residual_that_its_code_never_takes_is_refused(nemo: Make) -> None:
    assert "flag-contradicts-dialect" in nemo(norm_before_residual=True).refusal()


def test_the_prefix_alone_makes_it_nemos(nemo: Make) -> None:
    """Its script for SGLang changes the architecture in place."""
    draft = nemo(architectures=["LlamaForCausalLMEagle3"], norm_output=True)
    assert detect(draft.write()).format == "eagle3-nemo"


def test_its_export_for_vllm_is_not_taken_for_specforges(nemo: Make) -> None:
    converted = exported(nemo(norm_output=True)).convert()
    assert converted.conversion.format == "eagle3-nemo"
    assert converted.config["norm_output"] is True


def test_the_older_export_folder_is_read(nemo: Make) -> None:
    """`draft_model.pt` beside a pickle of the training, which is never opened."""
    draft = nemo()
    folder = draft.write()
    (folder / "model.safetensors").unlink()
    torch.save(draft.tensors, folder / "draft_model.pt")
    (folder / "eagle_meta.pt").write_bytes(b"anything")
    assert detect(folder).format == "eagle3-nemo"
