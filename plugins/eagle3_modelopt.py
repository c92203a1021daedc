"""EAGLE-3 as NVIDIA ModelOpt exports it (`nvidia/*-Eagle3*`): no t2d, draft tokens in order of frequency, output ids.

Since late 2025 ModelOpt trains another network than servers run: its first layer applies `input_layernorm` to the
hidden half as well, before `hidden_norm`. The same release renamed `midlayer.` to `layers.0.`, and nothing in the file
tells which of the two trained it, so every `layers.0.` file gets a warning that says so.

Drafts of several layers (`LlamaForCausalLMEagle3Deep`) number `midlayer`, which vLLM would read as `layers.0.0`, and
call the norm of a later layer `hidden_norm`. Those for gpt-oss may norm the states before `fc` (`input_norm`), or have
no `fc` at all (`use_aux_hidden_state: false`): drafts are taken under those switches of `eagle_config` that servers
compute. The newest of them counts its layer ids as servers do: `--aux-layer-convention boundary` says so. Without
`lm_head` the draft has the verifier's, which is right only for the whole vocabulary.
"""

from __future__ import annotations

from dataclasses import replace

from spec_convert.checkpoint import Checkpoint
from spec_convert.evidence import Evidence, weigh
from spec_convert.example import Example, Sizes, shapes_of
from spec_convert.facts import Facts
from spec_convert.findings import Finding
from spec_convert.formats import Described, Draft, Format, Layout, Request
from spec_convert.hookspecs import hookimpl
from spec_convert.plugins.eagle3 import EAGLE3
from spec_convert.plugins.families import eagle3, examples, llama
from spec_convert.plugins.families.aux_layers import KEY
from spec_convert.rules import found
from spec_convert.tensor_map import TensorMap, refuse

ARCHITECTURE, DEEP = "LlamaForCausalLMEagle3", "LlamaForCausalLMEagle3Deep"
DIALECT = eagle3.Dialect(norm_before_residual=False, norm_output=False, convention="output")

# fmt: off
NUMBERED = TensorMap(
    eagle3.FUSION,
    eagle3.FIRST_LAYER.under("midlayer.0.",      "layers.0."),
    eagle3.LATER_LAYER.under("midlayer.{i:1+}.", "layers.{i:1+}."),
    llama.ROTARY,
)
PARALLEL_HEADS = TensorMap(
    refuse("parallel_draft_heads.{rest...}", because=(
        "Medusa heads beside the draft guess the tokens after its own, which no server of this layout computes"
    )),
)
# fmt: on
OWN_TABLES = {
    "norm before fc": eagle3.NORM_BEFORE_FC,
    "several layers": NUMBERED,
    "heads for later tokens": PARALLEL_HEADS,
}


def recognise(checkpoint: Checkpoint) -> Evidence:
    signs = eagle3.exported_by_modelopt(checkpoint) or checkpoint.architecture == DEEP
    return weigh(
        required=eagle3.looks_like_eagle3(checkpoint)
        | {
            f"the architecture {ARCHITECTURE} or {DEEP}": checkpoint.architecture in (ARCHITECTURE, DEEP),
            "signs of ModelOpt's exporter": signs,
            "no mark of TorchSpec": not eagle3.trained_by_torchspec(checkpoint),
        }
    )


def layout(checkpoint: Checkpoint, request: Request) -> Layout:
    facts = Facts.of(checkpoint)
    norms = [eagle3.NORM_BEFORE_FC] if "input_norm.weight" in checkpoint else []
    body = NUMBERED if eagle3.first_layer(checkpoint) == "midlayer.0." else eagle3.TABLES["body"]
    return eagle3.layout(checkpoint, facts, facts, PARALLEL_HEADS, *norms, body=body)


def describe(draft: Draft) -> Described:
    facts = Facts.of(draft.checkpoint)
    described = eagle3.describe(draft, facts, facts, DIALECT)
    if eagle3.first_layer(draft.checkpoint) != "layers.0.":
        return described
    return replace(described, findings=(*described.findings, _double_norm()))


def _double_norm() -> Finding:
    return found(
        "trainer-differs-from-servers", where="layers.0.input_layernorm.weight",
        message="ModelOpt since 2025-12 trains with this norm on the hidden half too; every server leaves it out, "
        "and the file does not tell whether it was trained so",
        hint="measure the acceptance; if it is low, ask the publisher for the ModelOpt version",
    )  # fmt: skip


def example(sizes: Sizes) -> Example:
    """As it was exported before the network changed; of several layers each is a numbered `midlayer`."""
    deep = sizes.layers > 1
    switches = {
        "use_aux_hidden_state": True,
        "use_input_layernorm_in_first_layer": True,
        "use_last_layernorm": True,
        "use_mtp_layernorm": False,
        "next_layer_regular": True,
        "parallel_draft_step": 1,
        "parallel_draft_heads_num_layers": 1,
    }
    config = examples.transformers_config(
        sizes,
        architectures=[DEEP if deep else ARCHITECTURE],
        draft_vocab_size=sizes.draft_vocabulary,
        eagle_config={KEY: examples.output_ids(sizes), **switches},
    )
    by_frequency = examples.kept_tokens(sizes)[::-1]
    body = shapes_of(NUMBERED, sizes, aux=examples.STATES, target=sizes.hidden)
    shapes = (body if deep else examples.eagle3_shapes(sizes)) | examples.reduced_head(sizes)
    return Example(config=config, shapes=shapes, values={"d2t": examples.offsets(by_frequency)})


FORMAT = replace(
    EAGLE3,
    name="eagle3-modelopt",
    title="EAGLE-3 of NVIDIA ModelOpt",
    reference="https://github.com/NVIDIA/Model-Optimizer",
    tables=eagle3.TABLES | OWN_TABLES,
    recognise=recognise,
    layout=layout,
    describe=describe,
    example=example,
)


@hookimpl
def spec_convert_formats() -> list[Format]:
    return [FORMAT]
