"""What the code behind a target does not compute is refused with the reason, before anything is written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from spec_convert.errors import Refused, UsageError
from spec_convert.exporting import export

Make = Callable[..., Any]


def reason(unified: Path, to: str) -> str:
    """The messages with which the export is refused; OUTPUT does not exist afterwards."""
    with pytest.raises(Refused) as refused:
        export(unified, unified.parent / "exported", to=to)
    assert not (unified.parent / "exported").exists()
    assert {f.rule for f in refused.value.findings if f.level == "error"} == {"export-not-representable"}
    return "; ".join(f.message for f in refused.value.findings)


def normed(draft: Any) -> Any:
    names = ("embed_layernorm", "hidden_layernorm", "lm_head_layernorm")
    draft.tensors |= {f"{name}.weight": torch.full((16,), 0.5) for name in names}
    return draft


def qk_normed(draft: Any) -> Any:
    draft.tensors |= {f"midlayer.self_attn.{norm}.weight": torch.ones(6) for norm in ("q_norm", "k_norm")}
    return draft.set(model_type="qwen3")


def qkv_biased(draft: Any) -> Any:
    for part, rows in (("q", 24), ("k", 12), ("v", 12)):
        draft.tensors[f"layers.0.self_attn.{part}_proj.bias"] = torch.ones(rows)
    return draft


def biased(draft: Any) -> Any:
    rows = {"q": 24, "k": 12, "v": 12, "o": 16}
    draft.tensors |= {f"midlayer.self_attn.{part}_proj.bias": torch.ones(count) for part, count in rows.items()}
    return draft


@pytest.mark.parametrize("target", ["vllm", "sglang", "safeai"])
def test_layernorms_around_the_fusion_have_no_native_place(target: str, eagle: Make) -> None:
    assert "layernorms around the fusion" in reason(normed(eagle()).convert().output, target)


def test_the_old_library_norms_behind_the_fusion(eagle: Make) -> None:
    assert "sits after the fusion" in reason(normed(eagle()).convert().output, "speculators-0.6")


def test_the_old_library_has_one_layer(eagle: Make) -> None:
    assert "it has one layer" in reason(eagle(layers=2).convert().output, "speculators-0.6")


@pytest.mark.parametrize("key", ["rope_theta", "rope_scaling"])
def test_the_old_library_rotates_as_the_verifier_does(key: str, eagle: Make) -> None:
    other = {"rope_theta": 12345.0, "rope_scaling": {"rope_type": "linear", "factor": 2.0}}[key]
    assert "it rotates as the verifier does" in reason(eagle(**{key: other}).convert().output, "speculators-0.6")


def test_the_old_library_takes_the_verifiers_embedding(eagle: Make, make_verifier: Make) -> None:
    draft = eagle()
    draft.tensors["embed_tokens.weight"] = torch.ones(32, 16)
    assert "it takes the embedding from the verifier" in reason(draft.convert().output, "speculators-0.6")


@pytest.mark.parametrize("target", ["sglang", "speculators-0.6"])
def test_biases_on_queries_keys_and_values_alone_are_not_everywhere(target: str, eagle: Make) -> None:
    assert "biases on queries, keys and values" in reason(qkv_biased(eagle()).convert().output, target)


@pytest.mark.parametrize("target", ["sglang", "safeai"])
def test_biases_in_the_attention_of_eagle3_are_vllms_alone(target: str, eagle3: Make) -> None:
    assert "it has no biases in its attention" in reason(biased(eagle3()).convert().output, target)


def test_not_even_vllm_has_them_all_beside_norms_on_queries_and_keys(eagle3: Make) -> None:
    assert "Qwen3 layers have no bias on the output" in reason(biased(qk_normed(eagle3())).convert().output, "vllm")


@pytest.mark.parametrize("kind", ["eagle", "eagle3"])
def test_sglang_replaces_an_embedding(kind: str, request: pytest.FixtureRequest) -> None:
    draft = request.getfixturevalue(kind)()
    draft.tensors["embed_tokens.weight"] = torch.ones(32, 16)
    assert "it replaces the draft's own embedding" in reason(draft.convert().output, "sglang")


@pytest.mark.parametrize("target", ["vllm", "sglang"])
@pytest.mark.parametrize("kind", ["eagle", "eagle3"])
def test_the_config_class_of_servers_wants_even_heads(kind: str, target: str, request: pytest.FixtureRequest) -> None:
    draft = request.getfixturevalue(kind)(num_attention_heads=3, num_key_value_heads=3)
    first = next(name for name in draft.tensors if name.endswith("q_proj.weight")).removesuffix("q_proj.weight")
    width = draft.tensors[f"{first}q_proj.weight"].shape[1]
    draft.tensors |= {f"{first}{part}_proj.weight": torch.ones(18, width) for part in "qkv"}
    draft.tensors[f"{first}o_proj.weight"] = torch.ones(16, 18)
    assert "a multiple of the number of heads" in reason(draft.convert().output, target)


def test_the_authors_split_the_hidden_size_into_heads(eagle: Make) -> None:
    assert "hidden_size / num_attention_heads" in reason(eagle().convert().output, "safeai")


def test_the_authors_know_no_llama3_rotation(eagle3: Make) -> None:
    unified = eagle3(rope_scaling={"rope_type": "llama3", "factor": 8.0}).convert().output
    assert "only by `type` linear or dynamic" in reason(unified, "safeai")


def test_the_authors_code_drops_the_base_when_it_scales(eagle3: Make) -> None:
    unified = eagle3(rope_scaling={"type": "linear", "factor": 2.0}).convert().output
    assert "only at the base 10000" in reason(unified, "safeai")


def test_the_authors_run_few_verifiers(eagle3: Make, make_verifier: Make) -> None:
    unified = eagle3().convert(verifier=make_verifier("gemma", architectures=["Gemma3ForCausalLM"])).output
    assert "it runs no verifier of the architecture Gemma3ForCausalLM" in reason(unified, "safeai")


def test_the_authors_take_the_same_three_states_always(specforge: Make) -> None:
    unified = specforge(eagle_config={"eagle_aux_hidden_state_layer_ids": [0, 3, 6]}).convert().output
    assert "it always takes the states [2, 4, 5]" in reason(unified, "safeai")


@pytest.mark.parametrize("target", ["sglang", "safeai"])
def test_norms_on_queries_and_keys_are_vllms_alone(target: str, specforge: Make) -> None:
    assert "no norms on queries and keys" in reason(qk_normed(specforge()).convert().output, target)


@pytest.mark.parametrize("target", ["sglang", "safeai"])
def test_the_residual_before_the_norm_is_vllms_alone(target: str, eagle3: Make) -> None:
    unified = eagle3(prefix="layers.0.").convert(norm_before_residual=True, aux_layer_ids=[2, 4, 5]).output
    assert "it takes the residual before hidden_norm" in reason(unified, target)


def test_the_authors_have_no_norm_before_fc(specforge: Make) -> None:
    draft = specforge()
    draft.tensors["input_norm.weight"] = torch.ones(48)
    assert "it has no norm before fc" in reason(draft.convert().output, "safeai")


def test_the_authors_have_one_layer(eagle3: Make) -> None:
    assert "it has one layer" in reason(eagle3(layers=2).convert().output, "safeai")


def test_sglang_skips_fc_for_one_state(specforge: Make) -> None:
    unified = specforge(states=1, eagle_config={"eagle_aux_hidden_state_layer_ids": [3]}).convert().output
    assert "it skips fc" in reason(unified, "sglang")


def test_sglang_has_no_output_before_the_first_layer(eagle3: Make) -> None:
    assert "what enters layer 0" in reason(eagle3().convert(aux_layer_ids=[0, 3, 6]).output, "sglang")


def test_sglang_reads_the_ids_of_some_verifiers_as_they_stand(eagle3: Make, make_verifier: Make) -> None:
    deepseek = make_verifier("deepseek", model_type="deepseek_v3")
    unified = eagle3().convert(verifier=deepseek, aux_layer_ids=[3, 4, 6]).output
    assert "for a verifier of type deepseek_v3" in reason(unified, "sglang")


def test_those_verifiers_are_fine_when_the_first_id_is_one(eagle3: Make, make_verifier: Make) -> None:
    deepseek = make_verifier("deepseek", model_type="deepseek_v3")
    unified = eagle3().convert(verifier=deepseek, aux_layer_ids=[2, 4, 6]).output
    assert export(unified, unified.parent / "exported", to="sglang").exact


def test_ids_that_could_be_read_in_two_ways_are_not_written(eagle3: Make) -> None:
    """As outputs, these are the default of everybody who counts inputs: a reader would have to ask."""
    unified = eagle3().convert(aux_layer_ids=[3, 5, 6]).output
    assert "would be read as counting inputs" in reason(unified, "sglang")


def test_a_quantised_table_of_the_verifier_is_not_stored_as_its_codes(eagle: Make, tmp_path: Path) -> None:
    draft = eagle()
    draft.tensors["fc.bias"] = torch.ones(16)  # to be folded into the verifier's embedding
    unified = draft.convert().output
    file = draft.verifier / "model.safetensors"
    tables = load_file(file)
    tables["model.embed_tokens.weight"] = tables["model.embed_tokens.weight"].to(torch.float8_e4m3fn)
    save_file(tables, file)
    assert "is stored as F8_E4M3, quantised" in reason(unified, "vllm")


def test_the_authors_take_three_states_of_few_verifiers(eagle3: Make, make_verifier: Make) -> None:
    qwen2 = make_verifier("qwen2", architectures=["Qwen2ForCausalLM"])
    unified = eagle3().convert(verifier=qwen2).output
    assert "it runs no verifier of the architecture Qwen2ForCausalLM" in reason(unified, "safeai")


def test_eagle3_needs_no_export_to_the_library(eagle3: Make) -> None:
    unified = eagle3().convert().output
    with pytest.raises(UsageError, match=r"reads .* as it is"):
        export(unified, unified.parent / "exported", to="speculators-0.6")


def test_a_rounded_copy_of_the_verifiers_embedding_is_the_verifiers(eagle: Make, make_verifier: Make) -> None:
    """SafeAILab's files hold a frozen copy in the draft's dtype: replacing it loses nothing that was trained."""
    draft, verifier = eagle(), make_verifier("same heads", head_dim=6)
    draft.tensors = {name: tensor.half() for name, tensor in draft.tensors.items()}
    table = load_file(verifier / "model.safetensors")["model.embed_tokens.weight"].half()
    draft.tensors["embed_tokens.weight"] = table
    unified = draft.convert(verifier=verifier).output
    assert export(unified, unified.parent / "sglang", to="sglang").exact
    left_out = export(unified, unified.parent / "library", to="speculators-0.6")
    assert set(left_out.changed) == {"embed_tokens.weight"}
    table[3, 3] += 0.25
    draft.tensors["embed_tokens.weight"] = table
    assert "it replaces the draft's own embedding" in reason(draft.convert(verifier=verifier).output, "sglang")
