"""A home-made EAGLE-3 with Qwen3 layers (`train_eagle3_qwen3.py`, `Eagle3Qwen3ForCausalLM`, weights in `model.pt`).

    x = layers(fc(states));  logits = lm_head(norm(x));  hidden_state_projection(norm(x)) is fed to the next step

Its first version put a linear map (`self_attn_qkv`) where attention should be, which nothing can serve. Later ones have
attention, saved as they are or under everybody's names. They rotate neighbours in a head where servers rotate its
halves, so the rows of queries and keys are reordered, exactly. Nobody serves the projection: without it the first token
of each proposal is exact, later ones are not. Rope and positions are fixed in the code and not in config.json, and
nothing tells how `target_layers` counts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from spec_convert.checkpoint import Checkpoint
from spec_convert.errors import Refused
from spec_convert.evidence import Evidence, weigh
from spec_convert.example import Example, Sizes, shapes_of
from spec_convert.facts import Facts
from spec_convert.findings import Finding
from spec_convert.formats import Described, Draft, Format, Layout, Request
from spec_convert.hookspecs import hookimpl
from spec_convert.operations import RotaryHalves
from spec_convert.plugins.eagle3 import EAGLE3
from spec_convert.plugins.families import eagle3, examples, llama
from spec_convert.plugins.families.aux_layers import KEY
from spec_convert.plugins.families.vocabulary import FULL
from spec_convert.rules import found
from spec_convert.tensor_map import TensorMap, drop, keep, move, split

ARCHITECTURE = "Eagle3Qwen3ForCausalLM"
LAYERS = "target_layers"
# What the code fixes. Configs of people who changed it may say otherwise.
FIXED = {"hidden_act": "silu", "max_position_embeddings": 131072, "rope_theta": 1000000.0}
DIALECT = eagle3.Dialect(norm_before_residual=None, norm_output=True, convention="either", has_default_ids=False)
PROJECTION = "hidden_state_projection.weight"
UNSERVED = "no server projects the state that it feeds back: the first drafted token is exact, later ones are not"
UNUSED = "the trainer's code norms a state of the verifier in the first layer alone"
ANY_WIDTH = 128  # of a head, where tables are only shown

SHARED = llama.norms("input_layernorm", "post_attention_layernorm") + llama.ROTARY


def _raw(width: str, head: int, turned: int) -> TensorMap:
    """A layer as the trainer holds it, its attention on ``width`` columns; queries and keys have ``turned`` rows."""
    parts = {"q": "heads*head_dim", "k": "kv_heads*head_dim", "v": "kv_heads*head_dim"}
    into = {f"self_attn.{part}_proj.weight": rows for part, rows in parts.items()}
    gated = {f"mlp.{part}_proj.weight": "inner" for part in ("gate", "up")}
    norm = "{n:q_norm|k_norm}.weight"
    return TensorMap(
        SHARED,
        split("qkv_proj.weight", into=into, shape=f"qkv {width}", first=RotaryHalves(head, turned)),
        move(norm, f"self_attn.{norm}", shape="head_dim", via=RotaryHalves(head)),
        move("o_proj.weight", "self_attn.o_proj.weight", shape="hidden heads*head_dim"),
        split("mlp_gate_up.weight", into=gated, shape="2*inner hidden"),
        move("mlp_down.weight", "mlp.down_proj.weight", shape="hidden inner"),
    )


def _renamed(width: str, head: int, turned: int) -> TensorMap:
    """A layer under everybody's names."""
    halves = RotaryHalves(head)
    return TensorMap(
        SHARED,
        llama.MLP,
        keep("self_attn.q_proj.weight", shape=f"heads*head_dim {width}", via=halves),
        keep("self_attn.k_proj.weight", shape=f"kv_heads*head_dim {width}", via=halves),
        keep("self_attn.v_proj.weight", shape=f"kv_heads*head_dim {width}"),
        keep("self_attn.{n:q_norm|k_norm}.weight", shape="head_dim", via=halves),
        keep("self_attn.o_proj.weight", shape="hidden heads*head_dim"),
    )


def _body(layer: Callable[[str, int, int], TensorMap], head: int, turned: int) -> TensorMap:
    later = layer("hidden", head, turned) + TensorMap(drop("hidden_norm.weight", because=UNUSED))
    return TensorMap(
        eagle3.FUSION,
        drop(PROJECTION, because=UNSERVED),
        (layer("2*hidden", head, turned) + llama.norms("hidden_norm")).under("layers.0."),
        later.under("layers.{i:1+}."),
    )


TABLES = {
    "as the trainer holds it": _body(_raw, ANY_WIDTH, ANY_WIDTH),
    "as the trainer saves it": _body(_renamed, ANY_WIDTH, ANY_WIDTH),
    "full vocabulary": FULL,
}


def recognise(checkpoint: Checkpoint) -> Evidence:
    return weigh(
        required={
            f"a projection of the state fed back, or `{LAYERS}` in config.json": eagle3.made_at_home(checkpoint),
            "a fusion of verifier states (`fc`)": "fc.weight" in checkpoint,
            llama.NOT_UNIFIED: not llama.is_unified(checkpoint),
        },
        supporting={f"the architecture {ARCHITECTURE}": checkpoint.architecture == ARCHITECTURE},
    )


def features(checkpoint: Checkpoint) -> Mapping[str, Any]:
    return eagle3.features(checkpoint) | {"qk_norm": any(name.endswith("q_norm.weight") for name in checkpoint)}


def layout(checkpoint: Checkpoint, request: Request) -> Layout:
    linear = next((name for name in sorted(checkpoint) if name.endswith(".self_attn_qkv.weight")), None)
    if linear is not None:
        message = "is a linear map where attention should be: a draft of the trainer's first version, which none serves"
        hint = "train it again with attention: nothing can be made of this one"
        raise Refused([found("refused-tensor", where=linear, message=message, hint=hint)])
    facts = _facts(checkpoint, request)
    size = {name: known.value for name, known in llama.sizes(facts).items()}
    head = size["hidden"] // size["heads"]
    layer = _raw if "layers.0.qkv_proj.weight" in checkpoint else _renamed
    body = _body(layer, head, (size["heads"] + size["kv_heads"]) * head)
    made = eagle3.layout(checkpoint, facts, facts, body=body, qk_norm=TensorMap())
    return replace(made, table=eagle3.always(made.table, examples.EMBEDDING, "lm_head.weight"))


def _facts(checkpoint: Checkpoint, request: Request) -> Facts:
    """config.json, with what the code fixes, and its layers under the usual name."""
    facts = Facts.of(checkpoint)
    if request.aux_layer_ids is None and not facts.has(KEY):
        facts.require({LAYERS: list})
    said = {key: value for key, value in facts.values.items() if value is not None}
    return replace(facts, values={**FIXED, KEY: facts.get(LAYERS), **said})


def describe(draft: Draft) -> Described:
    facts = _facts(draft.checkpoint, draft.request)
    described = eagle3.describe(draft, facts, facts, DIALECT)
    return replace(described, findings=(*described.findings, *_fixed(draft), *_lost(draft)))


def _fixed(draft: Draft) -> list[Finding]:
    silent = [key for key in FIXED if draft.checkpoint.get(key) is None]
    if not silent:
        return []
    message = f"has no {', '.join(f'`{key}` ({FIXED[key]})' for key in silent)}: the trainer's code fixes them"
    hint = "if yours was changed, add them as they were; `--rope-theta` overrides the rotary base"
    return [found("fixed-by-the-trainer", where="config.json", message=message, hint=hint)]


def _lost(draft: Draft) -> list[Finding]:
    if PROJECTION not in draft.mapped.dropped:
        return []
    hint = "measure the acceptance by position with `spec-convert evaluate`, and propose few tokens"
    return [found("state-fed-back-differs", where=PROJECTION, message=UNSERVED, hint=hint)]


def example(sizes: Sizes) -> Example:
    """As wide as its heads together, whatever the width of the verifier's states."""
    own = replace(sizes, hidden=sizes.heads * sizes.head_dim)
    config = {
        "architectures": [ARCHITECTURE],
        "vocab_size": own.vocabulary,
        "hidden_size": own.hidden,
        "num_hidden_layers": own.layers,
        "num_attention_heads": own.heads,
        "num_key_value_heads": own.kv_heads,
        "intermediate_size": own.inner,
        "rms_norm_eps": 1e-06,
        "target_hidden_size": sizes.hidden,
        "num_target_layers": examples.STATES,
        LAYERS: examples.output_ids(sizes),
        "norm_before_residual": False,
    }
    projection = {PROJECTION: (own.hidden, own.hidden)}
    unused = {f"layers.{number}.hidden_norm.weight": (own.hidden,) for number in range(1, own.layers)}
    tables = dict.fromkeys((examples.EMBEDDING, "lm_head.weight"), (own.vocabulary, own.hidden))
    body = shapes_of(TABLES["as the trainer saves it"], own, aux=examples.STATES, target=sizes.hidden)
    return Example(
        config=config,
        shapes=body | unused | tables | projection,
        file="model.pt",
        flags={"aux_layer_ids": tuple(examples.boundary_ids(sizes))},
        warned=frozenset({"state-fed-back-differs"}),
    )


FORMAT = replace(
    EAGLE3,
    name="eagle3-qwen3",
    title="EAGLE-3 of a home-made Qwen3 trainer",
    reference="train_eagle3_qwen3.py, a script without a release",
    tables=TABLES,
    recognise=recognise,
    features=features,
    layout=layout,
    describe=describe,
    example=example,
)


@hookimpl
def spec_convert_formats() -> list[Format]:
    return [FORMAT]
