"""The beginner's Eagle: an MLP on the embedding of the last token (`eagle_model.pt` of a widely copied guide).

    logits = lm_head(MLP(embeddings(token))),  MLP = (Linear, ReLU, LayerNorm) repeated

It looks at no verifier state and has no attention. Its config says `model_type: "eagle"`, as vLLM's old native format
does; that one has a nested `model`. The norms are `torch.nn.LayerNorm`s with torch's epsilon, which the guide's code
fixes and its config does not repeat.
"""

from __future__ import annotations

from typing import Any

from spec_convert.checkpoint import Checkpoint
from spec_convert.envelope import envelope
from spec_convert.evidence import Evidence, weigh
from spec_convert.example import Example, Sizes, shapes_of
from spec_convert.facts import Facts
from spec_convert.findings import Finding
from spec_convert.formats import Described, Draft, Format, Layout, Request
from spec_convert.hookspecs import hookimpl
from spec_convert.plugins.families import llama
from spec_convert.rules import found
from spec_convert.shapes import Known
from spec_convert.tensor_map import TensorMap, keep

LAYER_NORM_EPS = 1e-5

# fmt: off
TABLE = TensorMap(
    keep("embeddings.weight",                 shape="vocabulary hidden"),
    keep("mlp.{i:3n}.weight",                 shape="hidden hidden"),      # Linear
    keep("mlp.{i:3n}.bias",                   shape="hidden"),
    keep("mlp.{i:3n+2}.{p:weight|bias}",      shape="hidden"),             # LayerNorm
    keep("lm_head.weight",                    shape="vocabulary hidden"),
)
# fmt: on


def recognise(checkpoint: Checkpoint) -> Evidence:
    return weigh(
        required={
            "a table called `embeddings`": "embeddings.weight" in checkpoint,
            "a sequence `mlp.0`, `mlp.2`, …": "mlp.0.weight" in checkpoint and "mlp.2.weight" in checkpoint,
            "a head of its own": "lm_head.weight" in checkpoint,
            "no fusion and no decoder layer": not any(n.startswith(("fc.", "layers.")) for n in checkpoint),
            llama.NOT_UNIFIED: not llama.is_unified(checkpoint),
        },
        supporting={"`mlp_layers` in config.json": checkpoint.get("mlp_layers") is not None},
    )


def features(checkpoint: Checkpoint) -> dict[str, Any]:
    table = checkpoint.shape("embeddings.weight")
    return {
        "fusion_bias": False,
        "layernorms": False,
        "hidden_size": table[1] if table and len(table) == 2 else None,
        "vocab_size": table[0] if table else None,
        "draft_vocab_size": None,
        "layers": _linears(checkpoint),
        "own_embeddings": True,
    }


def _linears(names: Checkpoint | dict[str, Any]) -> int:
    return sum(name.startswith("mlp.") and name.endswith(".weight") for name in names) // 2


def layout(checkpoint: Checkpoint, request: Request) -> Layout:
    facts = Facts.of(checkpoint)
    named = facts.require({"hidden_size": int, "vocab_size": int, "mlp_layers": int})
    sizes = {
        "hidden": Known(named["hidden_size"], facts.where),
        "vocabulary": Known(named["vocab_size"], facts.where),
    }
    return Layout(table=TABLE, sizes=sizes, findings=tuple(_count(checkpoint, named["mlp_layers"])))


def _count(checkpoint: Checkpoint, layers: int) -> list[Finding]:
    """Linears and norms must alternate, as many as config.json says."""
    expected = {f"mlp.{3 * k + part}.weight" for k in range(min(layers, 1000)) for part in (0, 2)}
    actual = {name for name in checkpoint if name.startswith("mlp.") and name.endswith(".weight")}
    odd = sorted(expected ^ actual)
    if not odd:
        return []
    message = f"says mlp_layers {layers}, which does not fit {', '.join(odd[:4])}"
    return [found("config-key-invalid", where="config.json", message=message)]


def describe(draft: Draft) -> Described:
    facts, size = Facts.of(draft.checkpoint), draft.mapped.size
    base, findings = envelope(
        draft, facts, model_type="eagle_mlp", architecture="EagleMlpSpeculator", width=size("hidden")
    )
    findings.append(found("needs-the-vllm-plugin", where="config.json", message="a stock vLLM knows no such draft"))
    own = {
        "hidden_size": size("hidden"),
        "vocab_size": size("vocabulary"),
        "mlp_layers": _linears(dict(draft.mapped.targets)),
        "hidden_act": "relu",
        "layer_norm_eps": _epsilon(facts),
    }
    return Described(config=base | own, findings=tuple(findings))


def _epsilon(facts: Facts) -> float:
    """What a unified directory says; the guide's own config does not repeat what its code fixes."""
    key = "layer_norm_eps"
    return float(facts.require({key: float})[key]) if facts.has(key) else LAYER_NORM_EPS


def example(sizes: Sizes) -> Example:
    config = {
        "model_type": "eagle",
        "hidden_size": sizes.hidden,
        "vocab_size": sizes.vocabulary,
        "mlp_layers": sizes.layers,
    }
    return Example(config=config, shapes=shapes_of(TABLE, sizes), file="eagle_model.pt")


FORMAT = Format(
    name="eagle-mlp",
    title="MLP draft (beginner's Eagle)",
    reference='"Eagle Speculative Decoding: A Beginner\'s Implementation Guide"',
    produces="eagle_mlp",
    tables={"": TABLE},
    recognise=recognise,
    features=features,
    layout=layout,
    describe=describe,
    example=example,
)


@hookimpl
def spec_convert_formats() -> list[Format]:
    return [FORMAT]
