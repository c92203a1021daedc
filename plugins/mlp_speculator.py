"""IBM's MLPSpeculator (`ibm-ai-platform/*-accelerator`): small stages in turn, each fed by the last and by a token.

    x = gelu(ln_i(proj_i(x) + c * emb_i(token)));  logits_i = head_i(x)        for i = 0, 1, …

With `tie_weights` all stages share one embedding, head and norm, and all but the first one projection. vLLM's second
engine never took it over: the class is there and its registry leaves it out. So nothing serves a conversion, and the
layout is recognised, checked tensor by tensor, and refused.
"""

from __future__ import annotations

from typing import Any

from spec_convert.checkpoint import Checkpoint
from spec_convert.evidence import Evidence, weigh
from spec_convert.example import Example, Sizes
from spec_convert.facts import Facts
from spec_convert.findings import Finding
from spec_convert.formats import Format, Layout, Request, Unconverted
from spec_convert.hookspecs import hookimpl
from spec_convert.plugins.families import llama
from spec_convert.plugins.families.recognised import never
from spec_convert.rules import found
from spec_convert.shapes import Known
from spec_convert.tensor_map import TensorMap, keep

# fmt: off
# Each part counts its stages for itself: tied weights leave one of them in the file.
TABLE = TensorMap(
    keep("speculator.emb.{e:int}.weight",          shape="vocabulary inner"),
    keep("speculator.proj.0.weight",               shape="inner hidden"),
    keep("speculator.proj.{p:1+}.weight",          shape="inner inner", optional=True),
    keep("speculator.head.{h:int}.weight",         shape="vocabulary inner"),
    keep("speculator.ln.{n:int}.{p:weight|bias}",  shape="inner"),
)
# fmt: on
UNCONVERTED = Unconverted(
    because="vLLM has left MLPSpeculator out of its registry since its second engine: no unified directory of one "
    "would be served",
    instead="serve it with an older vLLM that still lists MLPSpeculatorPreTrainedModel, or train a draft that is "
    "served: `spec-convert train --draft eagle3 …`",
)


def recognise(checkpoint: Checkpoint) -> Evidence:
    return weigh(
        required={
            "stages `speculator.emb.0`, `speculator.proj.0` and `speculator.head.0`": all(
                f"speculator.{part}.0.weight" in checkpoint for part in ("emb", "proj", "head")
            ),
            llama.NOT_UNIFIED: not llama.is_unified(checkpoint),
        },
        supporting={'`model_type` "mlp_speculator"': checkpoint.get("model_type") == "mlp_speculator"},
    )


def features(checkpoint: Checkpoint) -> dict[str, Any]:
    return {
        "stages": _stages(checkpoint, "head"),
        "tied": checkpoint.get("tie_weights"),
        "hidden_size": checkpoint.get("emb_dim"),
        "vocab_size": checkpoint.get("vocab_size"),
    }


def _stages(checkpoint: Checkpoint, part: str) -> int:
    prefix = f"speculator.{part}."
    return len({name.split(".")[2] for name in checkpoint if name.startswith(prefix)})


def layout(checkpoint: Checkpoint, request: Request) -> Layout:
    facts = Facts.of(checkpoint)
    named = facts.require({"emb_dim": int, "vocab_size": int, "n_predict": int})
    inner = "inner_dim" if facts.get("inner_dim") != 0 else "emb_dim"  # 0 means: as wide as the verifier's states
    sizes = {"hidden": named["emb_dim"], "vocabulary": named["vocab_size"], "inner": facts.require({inner: int})[inner]}
    known = {name: Known(size, facts.where) for name, size in sizes.items()}
    findings = (UNCONVERTED.finding(checkpoint), *_counted(checkpoint, facts, named["n_predict"]))
    return Layout(table=TABLE, sizes=known, findings=findings)


def _counted(checkpoint: Checkpoint, facts: Facts, stages: int) -> list[Finding]:
    """Every stage has its tensors, or all share the first one's where config.json ties them."""
    tied = {"emb": 1, "proj": 2, "head": 1, "ln": 1}  # the first projection reads the verifier's state: it stays apart
    return [
        found("missing-tensor", where=f"speculator.{part}", message=f"has {there} stages, config.json says {stages}")
        for part, shared in tied.items()
        if (there := _stages(checkpoint, part)) != stages and not (facts.get("tie_weights") and there == shared)
    ]


def example(sizes: Sizes) -> Example:
    stages, inner = 3, sizes.inner
    shapes: dict[str, tuple[int, ...]] = {}
    for stage in range(stages):
        shapes |= {
            f"speculator.emb.{stage}.weight": (sizes.vocabulary, inner),
            f"speculator.proj.{stage}.weight": (inner, inner if stage else sizes.hidden),
            f"speculator.head.{stage}.weight": (sizes.vocabulary, inner),
            f"speculator.ln.{stage}.weight": (inner,),
            f"speculator.ln.{stage}.bias": (inner,),
        }
    config = {
        "architectures": ["MLPSpeculatorPreTrainedModel"],
        "model_type": "mlp_speculator",
        "vocab_size": sizes.vocabulary,
        "emb_dim": sizes.hidden,
        "inner_dim": inner,
        "n_predict": stages,
        "top_k_tokens_per_head": [5, 4, 3],
        "n_candidates": 5,
        "tie_weights": False,
        "scale_input": True,
    }
    return Example(config=config, shapes=shapes)


FORMAT = Format(
    name="mlp-speculator",
    title="MLPSpeculator (IBM's accelerators)",
    reference="https://github.com/foundation-model-stack/fms-extras (arXiv 2404.19124)",
    produces="",
    tables={"": TABLE},
    recognise=recognise,
    features=features,
    layout=layout,
    describe=never,
    unconverted=UNCONVERTED,
    example=example,
)


@hookimpl
def spec_convert_formats() -> list[Format]:
    return [FORMAT]
