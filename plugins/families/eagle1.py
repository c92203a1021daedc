"""EAGLE-1 and its relatives: one fusion of embedding and verifier state, one Llama layer without its first norm.

    u = fc(cat(embedding, state));  u += attention(u);  state' = u + mlp(post_attention_layernorm(u))

and the verifier's own head on the result. Relatives add a fusion bias or layernorms around the fusion; they share
these rows, this config and these checks. Source: SafeAILab/EAGLE `cnets1.py`; formats differ only in their clothes.
"""

from __future__ import annotations

from typing import Any, Literal

from spec_convert.checkpoint import Checkpoint
from spec_convert.containers.choose import is_token_list
from spec_convert.envelope import envelope
from spec_convert.facts import Facts
from spec_convert.findings import Finding
from spec_convert.formats import Described, Draft, Layout, Request
from spec_convert.operations import Cast
from spec_convert.plugins.families import llama
from spec_convert.plugins.families.llama import NOT_UNIFIED, is_unified
from spec_convert.plugins.families.promises import broken_promises, layer_biases
from spec_convert.rules import found
from spec_convert.tensor import FLOATS
from spec_convert.tensor_map import TensorMap, drop, either, keep, move, refuse

Position = Literal["before_fusion", "after_fusion"]
FLAGS = frozenset({"layernorms", "fusion_bias", "rope_theta"})

# fmt: off
FUSION = TensorMap(
    keep("embed_tokens.weight", shape="vocabulary hidden", optional=True),
    keep("fc.weight",           shape="hidden 2*hidden"),
)
FUSION_BIAS = TensorMap(keep("fc.bias", shape="hidden"))
BORROWED = TensorMap(
    refuse("lm_head.weight", because=(
        "EAGLE-1 borrows the verifier's head and has no place for one of its own: if this is only a copy of the "
        "verifier's, take it out of the file"
    )),
    drop("token_id_remap", because="FR-Spec's list of frequent tokens: servers score the whole vocabulary instead"),
    llama.ROTARY,
)
FIRST_LAYER = llama.attention("hidden") + llama.MLP + llama.norms("post_attention_layernorm")
BODY = TensorMap(FUSION, BORROWED, FIRST_LAYER.under("layers.0."), llama.LATER_LAYER.under("layers.{i:1+}."))

ANOTHER_FUNCTION = "EAGLE-1 has no such norm: with it this is another function (NeMo Automodel's), which servers lack"
FIRST_NORM = "layers.0.input_layernorm.weight"
LONGEST = 1 << 20  # bytes of a norm or a bias: they are read before their shape is known to be right
NO_EXTRA_NORMS = TensorMap(
    refuse(FIRST_NORM,    because=ANOTHER_FUNCTION),
    refuse("norm.weight", because=ANOTHER_FUNCTION),
)
DUMMY_NORM = TensorMap(
    drop(FIRST_NORM,      because="all ones: the placeholder that vLLM's first EAGLE loader asked for and skipped"),
    refuse("norm.weight", because=ANOTHER_FUNCTION),
)
LAYERNORMS = TensorMap(
    either(
        TensorMap(keep("embed_layernorm.weight",                                 shape="hidden")),
        TensorMap(move("post_embedding_layernorm.weight", "embed_layernorm.weight", shape="hidden")),
    ),
    keep("hidden_layernorm.weight",  shape="hidden"),
    keep("lm_head_layernorm.weight", shape="hidden"),
)
# fmt: on

BIAS_TENSOR = "fc.bias"
# Other functions, some of them under EAGLE-1's very names: classes of vLLM's own, and whose models they are for; NeMo
# Automodel's; those that see images.
VLLMS = (
    "EagleCohereForCausalLM", "EagleMiniCPMForCausalLM", "EagleMistralForCausalLM", "EagleMistralLarge3ForCausalLM",
    "EagleLlama4ForCausalLM", "EagleDeepSeekMTPModel", "EagleDeepseekV3ForCausalLM",
)  # fmt: skip
FOR_VLLMS = ("CohereForCausalLM", "Cohere2ForCausalLM", "Llama4ForCausalLM")
NEMOS = ("LlamaEagleDraftModel",)
SEEING = ("VispecDraftModel", "MSDDraftModel")
OTHERS = frozenset((*VLLMS, *FOR_VLLMS, *NEMOS, *SEEING))
OTHER_PARTS = frozenset({"enorm", "hnorm", "input_norm1", "img_adaptor", "imadpt"})
SGLANG = "LlamaForCausalLMEagle"
PLACEHOLDER = "all zeros: SGLang's fusion always has a bias, which would be random if the file had none"
LAYERNORM_TENSORS = (
    "embed_layernorm.weight",
    "post_embedding_layernorm.weight",
    "hidden_layernorm.weight",
    "lm_head_layernorm.weight",
)

TABLES = {
    "body": BODY + NO_EXTRA_NORMS,
    "placeholder of a first norm": DUMMY_NORM,
    "fusion bias": FUSION_BIAS,
    "query, key and value biases": llama.QKV_BIAS.under("layers.{i:int}."),
}


def looks_like_eagle1(checkpoint: Checkpoint) -> dict[str, bool]:
    """The statements that every checkpoint of the family must make true."""
    fc, query = checkpoint.shape("fc.weight"), checkpoint.shape("layers.0.self_attn.q_proj.weight")
    return {
        "a fusion `fc.weight` of embedding and one verifier state (twice as wide as high)": (
            fc is not None and len(fc) == 2 and fc[1] == 2 * fc[0]
        ),
        "a layer `layers.0` that reads states of the draft's own width": (
            fc is not None and query is not None and len(query) == 2 and query[1] == fc[0]
        ),
        "no EAGLE-3 norm on the state (`hidden_norm`)": not any(n.endswith("hidden_norm.weight") for n in checkpoint),
        "an architecture that is not known for another function": checkpoint.architecture not in OTHERS,
        "no norm before the fusion but EAGLE's own, and nothing for images": OTHER_PARTS.isdisjoint(checkpoint.parts),
        "no config nested under `model`, as vLLM's first engine had it": not isinstance(checkpoint.get("model"), dict),
        NOT_UNIFIED: not is_unified(checkpoint),
    }


def has_layernorms(checkpoint: Checkpoint) -> bool:
    return any(name in checkpoint for name in LAYERNORM_TENSORS)


def has_qkv_bias(checkpoint: Checkpoint) -> bool:
    return any(name.endswith(("q_proj.bias", "k_proj.bias", "v_proj.bias")) for name in checkpoint)


def bias_contradicts_config(checkpoint: Checkpoint) -> bool:
    """HASS's sign: its trainer builds the fusion with a bias whatever the config says."""
    return checkpoint.get("bias") is False and BIAS_TENSOR in checkpoint


def features(checkpoint: Checkpoint) -> dict[str, Any]:
    """What `detect` shows of an EAGLE-1 checkpoint, from its tensors alone."""
    fc, embedding = checkpoint.shape("fc.weight"), checkpoint.shape("embed_tokens.weight")
    return {
        "fusion_bias": BIAS_TENSOR in checkpoint,
        "layernorms": has_layernorms(checkpoint),
        "qkv_bias": has_qkv_bias(checkpoint),
        "hidden_size": fc[0] if fc else None,
        "vocab_size": embedding[0] if embedding else checkpoint.get("vocab_size"),
        "draft_vocab_size": None,
        "layers": len({name.split(".")[1] for name in checkpoint if name.startswith("layers.")}),
        "own_embeddings": embedding is not None,
    }


def layout(checkpoint: Checkpoint, request: Request) -> Layout:
    """The rows of a plain EAGLE-1 checkpoint: fusion bias and q/k/v biases as the tensors have them."""
    bias, findings = fusion_bias_rows(checkpoint, request, BIAS_TENSOR)
    if request.layernorms:
        findings.append(no_layernorms_to_keep())
    rows = TensorMap(BODY, extra_norm_rows(checkpoint), bias, qkv_bias_rows(checkpoint))
    findings += token_lists(checkpoint)
    return Layout(table=rows, sizes=llama.sizes(Facts.of(checkpoint)), findings=tuple(findings))


def token_lists(checkpoint: Checkpoint) -> list[Finding]:
    """A note on each of FR-Spec's lists beside the weights: files, or tensors."""
    tensors = (name for name in ("token_id_remap", "token_map") if name in checkpoint)
    return [
        found("token-map-left-out", where=name, message="a list of frequent tokens, which no unified EAGLE-1 has")
        for name in (*filter(is_token_list, checkpoint.files.sizes()), *tensors)
    ]


def qkv_bias_rows(checkpoint: Checkpoint) -> TensorMap:
    return TABLES["query, key and value biases"] if has_qkv_bias(checkpoint) else TensorMap()


def extra_norm_rows(checkpoint: Checkpoint) -> TensorMap:
    """The rows for norms that EAGLE-1 does not have: refused, except for a placeholder that holds nothing but ones."""
    return DUMMY_NORM if all_ones(checkpoint, FIRST_NORM) else NO_EXTRA_NORMS


def all_ones(checkpoint: Checkpoint, name: str) -> bool:
    """Whether there is such a norm, and it holds nothing but ones."""
    norm = checkpoint.tensors.get(name)
    if norm is None or norm.dtype not in FLOATS or norm.nbytes > LONGEST:
        return False
    one = 0x3F80 if norm.dtype == "BF16" else 1  # bfloat16 is read as the 16 bits that it is made of
    return bool((checkpoint.read(name) == one).all())


def layernorm_rows(norms: TensorMap, request: Request) -> tuple[TensorMap, list[Finding]]:
    """The rows of the layernorms in the file. A flag that takes them away is obeyed, and said aloud."""
    if request.layernorms is not False:
        return norms, []
    message = "the layernorms are in the file and trained: without them the draft computes another function"
    return without(norms), [found("flag-contradicts-tensors", where="--no-layernorms", message=message)]


def without(norms: TensorMap) -> TensorMap:
    return TensorMap(*(drop(row.text, because="--no-layernorms") for row in norms))


def no_layernorms_to_keep() -> Finding:
    return contradiction("--layernorms", "the file holds no layernorm tensors to take them from")


def fusion_bias_rows(checkpoint: Checkpoint, request: Request, name: str) -> tuple[TensorMap, list[Finding]]:
    """The row of the fusion bias. The tensor decides; a flag that contradicts it is said aloud, or refused."""
    if name in checkpoint and request.fusion_bias is False:
        rows = TensorMap(drop(name, because="--no-fusion-bias"))
        message = f"{name} is in the file and trained: without it the draft computes another function"
        return rows, [found("flag-contradicts-tensors", where="--no-fusion-bias", message=message)]
    if name in checkpoint and request.fusion_bias is None and _is_placeholder(checkpoint, name):
        return TensorMap(drop(name, because=PLACEHOLDER)), []
    if name in checkpoint:
        return TensorMap(move(name, BIAS_TENSOR, shape="hidden")), []
    if request.fusion_bias:
        return TensorMap(), [contradiction("--fusion-bias", f"the file holds no {name} to take it from")]
    return TensorMap(), []


def _is_placeholder(checkpoint: Checkpoint, name: str) -> bool:
    floats = checkpoint.tensors[name].dtype in FLOATS
    return checkpoint.architecture == SGLANG and floats and all_zero(checkpoint, name)


def all_zero(checkpoint: Checkpoint, name: str) -> bool:
    """Whether the float numbers of a norm or a bias are nothing but zeros, of either sign."""
    if checkpoint.tensors[name].nbytes > LONGEST:
        return False
    (values,) = Cast("F64", checkpoint.tensors[name].dtype).run([checkpoint.read(name)], ())
    return not values.any()


def promised_biases(checkpoint: Checkpoint, config: Facts, layer: Facts) -> list[Finding]:
    """What a unified config says of biases against the file. Native configs cannot be believed in this."""
    fusion = {"fusion_bias": any(name in checkpoint for name in ("fc.bias", "fusion_fc.bias"))}
    attention = {"qkv_bias": has_qkv_bias(checkpoint)} | layer_biases(checkpoint)
    return broken_promises(config, fusion) + broken_promises(layer, attention)


def contradiction(flag: str, message: str) -> Finding:
    return found("flag-without-tensors", where=flag, message=message, hint=f"leave {flag} out")


def describe(draft: Draft, facts: Facts, *, position: Position | None = None) -> Described:
    """The unified `eagle` config. ``position``: where the layernorm on the verifier's state sits, None without any."""
    layer, layer_findings = llama.layer_config(draft, facts)
    base, findings = envelope(
        draft, facts, model_type="eagle", architecture="EagleSpeculator", width=draft.mapped.size("hidden")
    )
    bias = "fc.bias" in draft.mapped.targets
    layer["qkv_bias"] = any(name.endswith("q_proj.bias") for name in draft.mapped.targets)
    config = base | {
        "fusion_bias": bias,
        "layernorms": position is not None,
        "layernorm_position": position,
        "transformer_layer_architecture": "LlamaDecoderLayer",
        "transformer_layer_config": layer,
    }
    findings += [*layer_findings, *llama.uneven_layers(draft, "self_attn.q_proj.bias")]
    if not bias and position is None:
        config |= served_by_stock_vllm(layer)
    else:
        why = "fusion bias" if bias else "layernorms"
        findings.append(found("needs-the-vllm-plugin", where="config.json", message=f"a stock vLLM lacks the {why}"))
    return Described(config=config, findings=tuple(findings))


def served_by_stock_vllm(layer: dict[str, Any]) -> dict[str, Any]:
    """The keys with which a stock vLLM serves the directory with `method: eagle`."""
    return {
        "architectures": ["EagleLlamaForCausalLM"],
        "model_type": "eagle",
        "model": layer | {"architectures": ["LlamaForCausalLM"]},
    }
