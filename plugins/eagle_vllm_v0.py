"""EAGLE-1 as vLLM's first engine took it (`abhigoyal/EAGLE-*-vllm`): the authors' draft in a config of vLLM's own.

The authors' config lies under `model`, and beside the authors' tensors there is a copy of the verifier's head, which
that engine did not share. Tensors may be spelt with `model.` or `model.model.` in front. A first norm is a placeholder
that the engine asked for and skipped, when it holds nothing but ones. `skip_prenorm: false`, `skip_output_norm: false`
and `add_para_norm` (`enorm`, `hnorm`) switch norms on that EAGLE-1 does not have. A unified EAGLE-1 directory has a
nested `model` too, so that a stock vLLM serves it: `speculators_model_type` tells the two apart.
"""

from __future__ import annotations

from typing import Any

from spec_convert.checkpoint import Checkpoint
from spec_convert.evidence import Evidence, weigh
from spec_convert.example import Example, Sizes
from spec_convert.facts import Facts
from spec_convert.findings import Finding
from spec_convert.formats import Described, Draft, Format, Layout, Request
from spec_convert.hookspecs import hookimpl
from spec_convert.plugins.families import eagle1, examples, llama
from spec_convert.rules import found
from spec_convert.tensor_map import TensorMap, drop, either, keep, refuse
from spec_convert.validation.comparing import is_the_verifiers

PREFIXES = ("", "model.", "model.model.")
HEADS = ("lm_head.weight", "model.lm_head.weight")
PLACEHOLDER = "all ones: the placeholder that vLLM's first EAGLE loader asked for and skipped"
SWITCHES = {"skip_prenorm": False, "skip_output_norm": False, "add_para_norm": True}  # on where they say this


def spelt(rows: TensorMap) -> TensorMap:
    """The same rows with each of the prefixes."""
    return either(*(rows.under(prefix, "") for prefix in PREFIXES))


# fmt: off
LAYERS = TensorMap(
    keep("embed_tokens.weight", shape="vocabulary hidden", optional=True),
    eagle1.FIRST_LAYER.under("layers.0."),
    llama.LATER_LAYER.under("layers.{i:1+}."),
)
BODY = TensorMap(
    keep("fc.weight", shape="hidden 2*hidden"),
    spelt(LAYERS),
    drop("token_map", because="a list of frequent tokens: servers score the whole vocabulary instead"),
    refuse("{n:enorm|hnorm}.weight",             because=eagle1.ANOTHER_FUNCTION),
    *(refuse(f"{p}norm.weight",                  because=eagle1.ANOTHER_FUNCTION) for p in PREFIXES),
)
TRAINED_NORM = TensorMap(*(refuse(p + eagle1.FIRST_NORM, because=eagle1.ANOTHER_FUNCTION) for p in PREFIXES))
DUMMY_NORM = TensorMap(*(drop(p + eagle1.FIRST_NORM, because=PLACEHOLDER) for p in PREFIXES))
COPIED_HEAD = TensorMap(*(drop(name, because="the verifier's head, which servers share") for name in HEADS))
OTHER_HEAD = TensorMap(*(
    refuse(name, because="another head than the verifier's, and EAGLE-1 has no place for one") for name in HEADS
))
QKV_BIAS = spelt(llama.QKV_BIAS.under("layers.{i:int}."))
# fmt: on
TABLES = {
    "body": BODY,
    "first norm of ones": DUMMY_NORM,
    "any other first norm": TRAINED_NORM,
    "head that is the verifier's": COPIED_HEAD,
    "head that is not": OTHER_HEAD,
    "fusion bias": eagle1.FUSION_BIAS,
    "query, key and value biases": QKV_BIAS,
}


def _query(checkpoint: Checkpoint) -> tuple[int, ...] | None:
    shapes = (checkpoint.shape(f"{prefix}layers.0.self_attn.q_proj.weight") for prefix in PREFIXES)
    return next((shape for shape in shapes if shape is not None), None)


def recognise(checkpoint: Checkpoint) -> Evidence:
    fc, query = checkpoint.shape("fc.weight"), _query(checkpoint)
    return weigh(
        required={
            "the draft's config nested under `model`": isinstance(checkpoint.get("model"), dict),
            "a fusion `fc.weight`, twice as wide as high": fc is not None and len(fc) == 2 and fc[1] == 2 * fc[0],
            "a layer that reads states of the draft's own width": (
                fc is not None and query is not None and len(query) == 2 and query[1] == fc[0]
            ),
            llama.NOT_UNIFIED: not llama.is_unified(checkpoint),
        },
        supporting={'`model_type` "eagle"': checkpoint.get("model_type") == "eagle"},
    )


def features(checkpoint: Checkpoint) -> dict[str, Any]:
    seen, nested = eagle1.features(checkpoint), checkpoint.get("model")
    layers = {name.partition("layers.")[2].partition(".")[0] for name in checkpoint if "layers." in name}
    own = any(f"{prefix}embed_tokens.weight" in checkpoint for prefix in PREFIXES)
    vocabulary = nested.get("vocab_size") if isinstance(nested, dict) else None
    return seen | {"vocab_size": vocabulary, "layers": len(layers), "own_embeddings": own}


def layout(checkpoint: Checkpoint, request: Request) -> Layout:
    facts = Facts.of(checkpoint).part("model")
    bias, findings = eagle1.fusion_bias_rows(checkpoint, request, eagle1.BIAS_TENSOR)
    if request.layernorms:
        findings.append(eagle1.no_layernorms_to_keep())
    norms = [prefix + eagle1.FIRST_NORM for prefix in PREFIXES if prefix + eagle1.FIRST_NORM in checkpoint]
    norm = DUMMY_NORM if all(eagle1.all_ones(checkpoint, name) for name in norms) else TRAINED_NORM
    head, about_head = _head_rows(checkpoint, request)
    attention = QKV_BIAS if eagle1.has_qkv_bias(checkpoint) else TensorMap()
    findings += [*_switched_on(facts), *_promised(checkpoint, facts), *about_head, *eagle1.token_lists(checkpoint)]
    rows = TensorMap(BODY, norm, head, bias, attention)
    return Layout(table=rows, sizes=llama.sizes(facts), findings=tuple(findings))


def _switched_on(facts: Facts) -> list[Finding]:
    return [
        found("not-representable", where=facts.where, message=f"`{key}` is {on}: a norm that no server's EAGLE-1 has")
        for key, on in SWITCHES.items()
        if facts.get(key) is on
    ]


def _promised(checkpoint: Checkpoint, nested: Facts) -> list[Finding]:
    """The bias that a config promises, at either of its two places. One that is there counts whatever it says."""
    key = "eagle_fc_bias"
    if eagle1.BIAS_TENSOR in checkpoint or True not in (checkpoint.get(key), nested.get(key)):
        return []
    message = f"config.json says `{key}` is true, and the file holds no such tensor"
    return [found("missing-tensor", where=eagle1.BIAS_TENSOR, message=message)]


def _head_rows(checkpoint: Checkpoint, request: Request) -> tuple[TensorMap, list[Finding]]:
    """A head in the file is the verifier's, as its converters copy it; it is compared wherever that is possible."""
    same = {name: _is_copy(checkpoint, name, request) for name in HEADS if name in checkpoint}
    if False in same.values():
        return OTHER_HEAD, []
    message = "is left out as the verifier's head, or rows of it, and was not compared with that"
    unseen = [found("head-not-compared", where=name, message=message) for name, copy in same.items() if copy is None]
    return COPIED_HEAD, unseen


def _is_copy(checkpoint: Checkpoint, name: str, request: Request) -> bool | None:
    head, tokens = checkpoint.tensors[name], checkpoint.shape("token_map")
    if request.verifier is None or head.shape[:1] == tokens:  # cut to the map's tokens, no row is where it was
        return None
    return is_the_verifiers(checkpoint.files, head, request.verifier)


def describe(draft: Draft) -> Described:
    return eagle1.describe(draft, Facts.of(draft.checkpoint).part("model"))


def example(sizes: Sizes) -> Example:
    """As the conversion script of vLLM's own pages writes it."""
    nested = examples.authors_config(sizes, rope_theta=500000.0, bias=False)
    made = examples.eagle1_example(sizes, {"model_type": "eagle", "model": nested})
    table = (sizes.vocabulary, sizes.hidden)
    return Example(config=made.config, shapes={**made.shapes, "lm_head.weight": table})


FORMAT = Format(
    name="eagle-vllm-v0",
    title="EAGLE-1 of vLLM's first engine",
    reference="https://github.com/vllm-project/vllm/pull/11126",
    produces="eagle",
    tables=TABLES,
    recognise=recognise,
    features=features,
    layout=layout,
    describe=describe,
    flags=eagle1.FLAGS,
    example=example,
)


@hookimpl
def spec_convert_formats() -> list[Format]:
    return [FORMAT]
