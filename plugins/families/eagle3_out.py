"""EAGLE-3 on its way out: the layouts of vLLM, SGLang and the authors, and what the code behind each cannot compute.

Sources: vLLM 0.32 `llama_eagle3.py` and `qwen3_eagle3.py`, SGLang 0.5.23 `llama_eagle3.py` and `eagle_worker_v2.py`,
SafeAILab/EAGLE cb7e084 `cnets.py` and `ea_model.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from spec_convert.formats import Native, UnifiedDraft
from spec_convert.plugins.families import eagle1_out, eagle3, llama, out
from spec_convert.plugins.families.aux_layers import KEY
from spec_convert.plugins.families.vocabulary import FULL, OFFSETS
from spec_convert.tensor_map import TensorMap, move

FLAGS = ("norm_before_residual", "norm_before_fc", "fc_norm", "norm_output")
# Verifiers in which SGLang adds one to the ids only when the first of them is 1.
IDS_READ_RAW = frozenset({"deepseek_v2", "deepseek_v3", "deepseek_v32", "kimi_k2", "kimi_k25", "glm4_moe_lite"})
# The authors' copies of these models alone hand out the states of three layers.
AUTHORS_VERIFIERS = frozenset({"LlamaForCausalLM", "Qwen3ForCausalLM"})
# fmt: off
VLLM = TensorMap(
    eagle3.FUSION,
    eagle3.FIRST_LAYER.under("layers.0."),
    llama.LATER_LAYER.under("layers.{i:1+}."),
)
SGLANG = TensorMap(
    eagle3.FUSION,
    eagle3.FIRST_LAYER.under("midlayer.", "layers.0."),
    TensorMap(
        llama.attention("hidden"), llama.MLP, llama.norms("post_attention_layernorm"),
        move("hidden_norm.weight", "input_layernorm.weight", shape="hidden"),
    ).under("layers.{i:1+}."),
)
AUTHORS = TensorMap(
    eagle3.FUSION,
    eagle3.FIRST_LAYER.under("midlayer.", "layers.0."),
)
QK_NORMS = llama.QK_NORM.under("layers.0.") + llama.QK_NORM.under("layers.{i:1+}.")
BIASES = llama.ATTENTION_BIAS.under("layers.0.") + llama.ATTENTION_BIAS.under("layers.{i:1+}.")
# fmt: on


def for_vllm(draft: UnifiedDraft) -> Native:
    """vLLM's own EAGLE-3, served with `method: eagle3`: the unified names, and every flag at the top level."""
    kind = "Qwen3" if out.layer(draft)["model_type"] == "qwen3" else "Llama"
    own = {key: draft.config[key] for key in ("draft_vocab_size", *FLAGS, KEY)}
    return Native(
        table=(VLLM + _parts(draft)).inverse,
        config=out.config(draft, f"Eagle3{kind}ForCausalLM", **own, **_width(draft)),
        sizes=out.sizes(draft),
        findings=out.cannot("vLLM's EAGLE-3", _not_in_vllm(out.layer(draft))),
    )


def _not_in_vllm(facts: Mapping[str, Any]) -> dict[str, bool]:
    normed_and_biased = facts["model_type"] == "qwen3" and facts["attention_bias"]
    return {"its Qwen3 layers have no bias on the output": normed_and_biased, **out.servers_limits(facts)}


def for_sglang(draft: UnifiedDraft) -> Native:
    """SGLang's EAGLE-3, as SpecForge writes it: ids that count outputs of layers.

    Without a `draft_vocab_size` SGLang takes the verifier's head.
    """
    config = draft.config
    ids = [number - 1 for number in config[KEY]]
    more = {
        "draft_vocab_size": config["draft_vocab_size"] if out.HEAD in draft.checkpoint else None,
        "norm_before_fc": config["norm_before_fc"],
        "fc_norm": config["fc_norm"],
        "eagle_config": {KEY: ids, "use_aux_hidden_state": True},
    }
    return Native(
        table=(SGLANG + _parts(draft)).inverse,
        config=out.config(draft, "LlamaForCausalLMEagle3", **more, **_width(draft)),
        sizes=out.sizes(draft),
        findings=out.cannot("SGLang", _not_in_sglang(draft, ids)),
    )


def _not_in_sglang(draft: UnifiedDraft, ids: list[int]) -> dict[str, bool]:
    config, facts, kind = draft.config, out.layer(draft), draft.verifier.text_config.get("model_type")
    width = facts["num_aux_hidden_states"] * out.sizes(draft)["target"].value
    replaced = out.EMBEDDING in draft.checkpoint and config["target_hidden_size"] is None
    layers = draft.verifier.num_hidden_layers
    return {
        "it takes the residual before hidden_norm": config["norm_before_residual"],
        "it has no norms on queries and keys": facts["model_type"] == "qwen3",
        "it has no biases in its attention": facts["attention_bias"],
        "its layout has another meaning of norm_output, so the normed state would not be fed back": (
            config["norm_output"]
        ),
        "it counts outputs of layers, and what enters layer 0 is the output of none": ids[0] < 0,
        f"these ids, counted as outputs, are {ids}: its layout would be read as counting inputs": (
            ids == [2, layers // 2, layers - 3]
        ),
        f"for a verifier of type {kind} it adds one to the ids only if the first is 1": (
            kind in IDS_READ_RAW and ids[0] != 1
        ),
        "it skips fc when the fused states are as wide as the draft": width == facts["hidden_size"],
        "it replaces the draft's own embedding by the verifier's, which is another": (
            replaced and not out.is_the_verifiers(draft, out.EMBEDDING)
        ),
        **out.servers_limits(facts),
    }


def for_authors(draft: UnifiedDraft) -> Native:
    """SafeAILab's own layout: no ids, no flags, always a head in the file."""
    findings = out.cannot("SafeAILab's EAGLE-3", _not_by_the_authors(draft))
    table, changed = (AUTHORS + _parts(draft)).inverse, {}
    if out.HEAD not in draft.checkpoint and not findings:
        row, said = out.borrow(draft, out.HEAD)
        table, changed = out.leaving(table, out.HEAD) + row, {out.HEAD: said}
        findings = (out.changed(out.HEAD, said),)
    own = {"draft_vocab_size": draft.config["draft_vocab_size"]}
    return Native(
        table=table,
        config=out.config(draft, "LlamaForCausalLM", leave_out=["num_aux_hidden_states"], **own, **_width(draft)),
        sizes=out.sizes(draft),
        findings=findings,
        changed=changed,
    )


def _not_by_the_authors(draft: UnifiedDraft) -> dict[str, bool]:
    config, facts, layers = draft.config, out.layer(draft), draft.verifier.num_hidden_layers
    ids, taken = config[KEY], [2, layers // 2, layers - 3]
    return {
        "it takes the residual before hidden_norm": config["norm_before_residual"],
        "it has no norm before fc": config["norm_before_fc"] or config["fc_norm"],
        "it feeds the state back as it was before the last norm": config["norm_output"],
        "it has no norms on queries and keys": facts["model_type"] == "qwen3",
        "it has no biases in its attention": facts["attention_bias"],
        "it has one layer": facts["num_hidden_layers"] != 1,
        f"it always takes the states {taken} of this verifier, and the draft was trained with {ids}": ids != taken,
        **eagle1_out.authors_limits(draft, AUTHORS_VERIFIERS),
    }


def _parts(draft: UnifiedDraft) -> TensorMap:
    """The rows of what not every draft has."""
    config, facts = draft.config, out.layer(draft)
    reduced = config["draft_vocab_size"] < facts["vocab_size"]
    return TensorMap(
        OFFSETS if reduced else FULL,
        eagle3.NORM_PER_STATE if config["fc_norm"] else TensorMap(),
        eagle3.NORM_BEFORE_FC if config["norm_before_fc"] else TensorMap(),
        QK_NORMS if facts["model_type"] == "qwen3" else TensorMap(),
        BIASES if facts["attention_bias"] else TensorMap(),
    )


def _width(draft: UnifiedDraft) -> dict[str, Any]:
    """The width of the verifier's states, only when it is another: readers multiply by whatever stands there."""
    width = draft.config["target_hidden_size"]
    return {} if width is None else {"target_hidden_size": width}
