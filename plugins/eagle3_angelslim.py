"""EAGLE-3 of Tencent's AngelSlim (`AngelSlim/*_eagle3`): SpecForge's layout, a rotary base that no config.json says.

Its trainer turns heads by base 10000 whatever `rope_theta` says (with three positions a token, for images, by the base
that it says), and of a rope scaling reads only kind and factor: what was trained is written, with a warning, and
`--rope-theta` overrides it. `tie_word_embeddings: true` is the verifier's: the head in the file is the draft's own, and
is never tied. The trainer's own architecture name is vLLM's, too, but without the flags that vLLM's layout has;
published files have SpecForge's name, and are told apart only when they tie the embeddings or say their `modal_type`.
"""

from __future__ import annotations

from dataclasses import replace

from spec_convert.checkpoint import Checkpoint
from spec_convert.evidence import Evidence, weigh
from spec_convert.example import Example, Sizes
from spec_convert.facts import Facts
from spec_convert.findings import Finding
from spec_convert.formats import Described, Draft, Format, Request
from spec_convert.hookspecs import hookimpl
from spec_convert.plugins.eagle3 import EAGLE3
from spec_convert.plugins.eagle3_vllm import LLAMA as TRAINERS
from spec_convert.plugins.families import eagle3, examples
from spec_convert.plugins.families.aux_layers import KEY
from spec_convert.plugins.families.rope import DEFAULT_THETA, KINDS, rope
from spec_convert.rules import found

PUBLISHED = "LlamaForCausalLMEagle3"
DIALECT = eagle3.Dialect(norm_before_residual=False, norm_output=False, convention="output")
READ = ("linear", "dynamic")  # the kinds of scaling of which the trainer takes the factor


def recognise(checkpoint: Checkpoint) -> Evidence:
    own = checkpoint.architecture == TRAINERS
    return weigh(
        required=eagle3.looks_like_eagle3(checkpoint)
        | {
            f"the architecture {TRAINERS} or {PUBLISHED}": own or checkpoint.architecture == PUBLISHED,
            "the marks of AngelSlim, or its architecture": own or eagle3.trained_by_angelslim(checkpoint),
            f"no `{KEY}` at the top level and no `norm_before_residual` (vLLM's own layout)": (
                not own or (not checkpoint.get(KEY) and checkpoint.get("norm_before_residual") is None)
            ),
            "no signs of ModelOpt's exporter": not eagle3.exported_by_modelopt(checkpoint),
            "no mark of TorchSpec": not eagle3.trained_by_torchspec(checkpoint),
        }
    )


def describe(draft: Draft) -> Described:
    said = Facts.of(draft.checkpoint)
    trained, findings = as_trained(said, draft.request)
    described = eagle3.describe(draft, trained, trained, DIALECT)
    return replace(described, findings=(*described.findings, *findings))


def as_trained(said: Facts, request: Request) -> tuple[Facts, list[Finding]]:
    """config.json with what its trainer makes of the rotary embedding, and a finding when that is something else."""
    theta, scaling, _ = rope(said, request)
    asked = Facts(scaling or {}, f"{said.where}: rope_scaling")
    kind = next((asked.get(key) for key in reversed(KINDS) if asked.has(key)), None)  # `type` first, as it does
    if kind not in (None, *READ):
        return said, []
    read = {"rope_type": kind, **asked.require({"factor": float})} if kind else None
    ignored = sorted(asked.values.keys() - {*KINDS, "factor"})
    if theta != DEFAULT_THETA and request.rope_theta is None:
        ignored.append(f"rope_theta {theta:g}")
    kept = {key: value for key, value in said.values.items() if key != "rope_parameters"}
    trained = Facts(kept | {"rope_theta": DEFAULT_THETA, "rope_scaling": read}, said.where)
    return trained, [_not_read(said, ignored, theta, request)] if ignored else []


def _not_read(said: Facts, ignored: list[str], theta: float, request: Request) -> Finding:
    written = request.rope_theta or DEFAULT_THETA
    other = f"`--rope-theta {theta:g}` writes the other base; measure which one is accepted more"
    return found(
        "rope-not-as-config", where=said.where,
        message=f"says {' and '.join(ignored)}, which AngelSlim's trainer does not read: base {written:g} is written",
        hint=other if theta != written else "",
    )  # fmt: skip


def example(sizes: Sizes) -> Example:
    """A config of its trainer, for a verifier whose embeddings are tied."""
    config = examples.transformers_config(
        sizes,
        architectures=[TRAINERS],
        draft_vocab_size=sizes.draft_vocabulary,
        rope_theta=DEFAULT_THETA,
        target_model_type="hunyuan_v1_dense",
        tie_word_embeddings=True,
    )
    return examples.eagle3_example(sizes, config)


FORMAT = replace(
    EAGLE3,
    name="eagle3-angelslim",
    title="EAGLE-3 of AngelSlim",
    reference="https://github.com/Tencent/AngelSlim",
    recognise=recognise,
    describe=describe,
    example=example,
)


@hookimpl
def spec_convert_formats() -> list[Format]:
    return [FORMAT]
