"""The MLP draft as an EAGLE-1 draft: its states for every token become the embedding, and all layers do nothing.

    fc = [I | 0],  o_proj = 0,  down_proj = 0   =>   state' = embedding[token] = MLP(embeddings[token])

The head is the verifier's, which EAGLE-1 borrows, so the draft's own must be the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from spec_convert.envelope import DTYPE_NAMES
from spec_convert.facts import Facts
from spec_convert.folding import Constant, MlpTable
from spec_convert.formats import Native, UnifiedDraft
from spec_convert.plugins.families import out
from spec_convert.shapes import Known
from spec_convert.tensor_map import Row, TensorMap, derive, drop

TABLE = "embeddings.weight"
INNER = 128  # of the MLP that does nothing: as small as common kernels and tensor parallelism allow
COMPUTED = "computed into the embedding"
# The layer that does nothing. Heads are the verifier's: its caches then have one shape.
IDLE = {
    "fc.weight": ("identity", "hidden 2*hidden"),
    "layers.0.self_attn.q_proj.weight": ("zeros", "heads*head_dim hidden"),
    "layers.0.self_attn.k_proj.weight": ("zeros", "kv_heads*head_dim hidden"),
    "layers.0.self_attn.v_proj.weight": ("zeros", "kv_heads*head_dim hidden"),
    "layers.0.self_attn.o_proj.weight": ("zeros", "hidden heads*head_dim"),
    "layers.0.mlp.gate_proj.weight": ("zeros", "inner hidden"),
    "layers.0.mlp.up_proj.weight": ("zeros", "inner hidden"),
    "layers.0.mlp.down_proj.weight": ("zeros", "hidden inner"),
    "layers.0.post_attention_layernorm.weight": ("ones", "hidden"),
}


def for_vllm(draft: UnifiedDraft) -> Native:
    """vLLM's own EAGLE-1, served with `method: eagle`."""
    numbers = _numbers(draft)
    config = _config(draft, numbers)
    another = not out.is_the_verifiers(draft, out.HEAD)
    findings = out.cannot(
        "vLLM's EAGLE-1",
        {"it borrows the verifier's head, and the draft has another of its own": another, **out.servers_limits(config)},
    )
    said = "holds the MLP's state for every token, computed in float64 and rounded once; the layers do nothing"
    return Native(
        table=TensorMap(*_rows(draft)),
        config=config,
        sizes={name: Known(value, "the verifier's config.json") for name, value in numbers.items()},
        findings=findings or (out.changed(out.EMBEDDING, said),),
        changed=dict.fromkeys((*draft.checkpoint, out.EMBEDDING, *IDLE), COMPUTED),
    )


def _rows(draft: UnifiedDraft) -> Iterator[Row]:
    parts = [TABLE]
    for linear in range(0, 3 * draft.config["mlp_layers"], 3):
        parts += [f"mlp.{number}.{part}" for number in (linear, linear + 2) for part in ("weight", "bias")]
    dtypes = tuple(draft.checkpoint.tensors[name].dtype for name in parts)
    mlp = MlpTable(dtypes, draft.dtype, draft.config["layer_norm_eps"])
    yield derive(out.EMBEDDING, of=tuple(parts), via=mlp)
    yield from (drop(name, because=COMPUTED) for name in parts)
    yield drop(out.HEAD, because="the verifier's, which EAGLE-1 borrows")
    for name, (kind, shape) in IDLE.items():
        yield derive(name, of=TABLE, via=Constant(kind, tuple(shape.split()), draft.dtype))


def _numbers(draft: UnifiedDraft) -> dict[str, int]:
    facts = Facts(draft.verifier.text_config, draft.verifier.name)
    heads = facts.require({"num_attention_heads": int})["num_attention_heads"]
    hidden: int = draft.config["hidden_size"]
    return {
        "hidden": hidden,
        "vocabulary": draft.config["vocab_size"],
        "inner": INNER,
        "heads": heads,
        "kv_heads": facts.first(["num_key_value_heads", "num_attention_heads"], int),
        "head_dim": facts.get("head_dim") or hidden // heads,
    }


def _config(draft: UnifiedDraft, numbers: dict[str, int]) -> dict[str, Any]:
    facts = Facts(draft.verifier.text_config, draft.verifier.name)
    return {
        "architectures": ["EagleLlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": numbers["hidden"],
        "intermediate_size": INNER,
        "num_hidden_layers": 1,
        "num_attention_heads": numbers["heads"],
        "num_key_value_heads": numbers["kv_heads"],
        "head_dim": numbers["head_dim"],
        "vocab_size": numbers["vocabulary"],
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "max_position_embeddings": facts.require({"max_position_embeddings": int})["max_position_embeddings"],
        "rope_theta": 10000.0,
        "rope_scaling": None,
        "attention_bias": False,
        "mlp_bias": False,
        "qkv_bias": False,
        "tie_word_embeddings": False,
        "torch_dtype": DTYPE_NAMES[draft.dtype],
    }
