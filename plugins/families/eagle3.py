"""EAGLE-3 in the reading that servers compute: rows, config and checks that all its dialects share.

    h = fc(cat(verifier states of three layers))
    h' = h + attention(cat(input_layernorm(embedding), hidden_norm(h)));  h'' = h' + mlp(post_attention_layernorm(h'))
    logits = lm_head(norm(h'')), and h'' is fed to the next step

Dialects differ in spelling (`midlayer.` or `layers.0.`), in the convention of their layer ids, in extra norms before
`fc`, and in what their config leaves unsaid. Sources: SafeAILab/EAGLE `cnets.py` (arXiv 2503.01840) and what vLLM 0.32
computes in `llama_eagle3.py`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from spec_convert.checkpoint import Checkpoint
from spec_convert.envelope import envelope
from spec_convert.errors import Refused
from spec_convert.facts import Facts
from spec_convert.findings import Finding
from spec_convert.formats import Described, Draft, Layout
from spec_convert.plugins.families import llama, switches
from spec_convert.plugins.families.aux_layers import Convention, aux_layer_ids
from spec_convert.plugins.families.promises import broken_promises
from spec_convert.plugins.families.vocabulary import TABLES as VOCABULARY_TABLES
from spec_convert.plugins.families.vocabulary import read_vocabulary
from spec_convert.rules import found
from spec_convert.shapes import Known
from spec_convert.tensor_map import TensorMap, either, keep, move, refuse

FLAGS = frozenset({"norm_before_residual", "aux_layer_ids", "aux_layer_convention", "rope_theta"})
ARCHITECTURES = {"eagle3": "Eagle3Speculator", "peagle": "PEagleSpeculator"}

# fmt: off
FIRST_LAYER = TensorMap(
    llama.attention("2*hidden"), llama.MLP,
    llama.norms("hidden_norm", "input_layernorm", "post_attention_layernorm"),
)
# SGLang calls the only norm of a later layer's input after the one on the verifier's state.
LATER_LAYER = TensorMap(
    llama.attention("hidden"), llama.MLP, llama.norms("post_attention_layernorm"),
    either(
        TensorMap(keep("input_layernorm.weight",                        shape="hidden")),
        TensorMap(move("hidden_norm.weight", "input_layernorm.weight",  shape="hidden")),
    ),
)
BEFORE_LAYERS = TensorMap(
    keep("fc.weight",           shape="hidden aux*target"),
    keep("embed_tokens.weight", shape="vocabulary hidden", optional=True),
    refuse("fc.bias", because="servers have no such bias, and on EAGLE-3 it cannot be folded into another tensor"),
)
FUSION = BEFORE_LAYERS + TensorMap(keep("norm.weight", shape="hidden"))
# EAGLE-3.1: one norm per verifier state. SpecForge's first spelling of it named the three.
NORM_PER_STATE = TensorMap(
    keep("fc_norm.{i:int}.weight",  shape="target"),
)
NORM_PER_NAMED_STATE = TensorMap(
    move("aux_norm_low.weight",  "fc_norm.0.weight", shape="target"),
    move("aux_norm_mid.weight",  "fc_norm.1.weight", shape="target"),
    move("aux_norm_high.weight", "fc_norm.2.weight", shape="target"),
)
NORM_BEFORE_FC = TensorMap(keep("input_norm.weight", shape="aux*target"))
# fmt: on

TABLES = {
    "body": TensorMap(
        FUSION,
        either(FIRST_LAYER.under("midlayer.", "layers.0."), FIRST_LAYER.under("layers.0.")),
        LATER_LAYER.under("layers.{i:1+}."),
        llama.ROTARY,
    ),
    "query and key norms (Qwen3 layers)": TensorMap(
        either(llama.QK_NORM.under("midlayer.", "layers.0."), llama.QK_NORM.under("layers.0.")),
        llama.QK_NORM.under("layers.{i:1+}."),
    ),
    "attention biases": TensorMap(
        either(llama.ATTENTION_BIAS.under("midlayer.", "layers.0."), llama.ATTENTION_BIAS.under("layers.0.")),
        llama.ATTENTION_BIAS.under("layers.{i:1+}."),
    ),
    **VOCABULARY_TABLES,
}
EXTRA_NORMS = {
    "norm per verifier state": NORM_PER_STATE,
    "norm per verifier state, first spelling": NORM_PER_NAMED_STATE,
    "norm before fc": NORM_BEFORE_FC,
}


def first_layer(checkpoint: Checkpoint) -> str:
    """How the file spells its first layer."""
    spellings = ("midlayer.0.", "midlayer.")
    return next((s for s in spellings if any(name.startswith(s) for name in checkpoint)), "layers.0.")


def looks_like_eagle3(checkpoint: Checkpoint) -> dict[str, bool]:
    """The statements that every checkpoint of the family must make true."""
    no_mask = not any(name.endswith("mask_hidden") for name in checkpoint)
    return begins_like_eagle3(checkpoint) | {"no `mask_hidden` (P-EAGLE)": no_mask}


def begins_like_eagle3(checkpoint: Checkpoint) -> dict[str, bool]:
    """The same of P-EAGLE as well."""
    layer = first_layer(checkpoint)
    query, norm = checkpoint.shape(f"{layer}self_attn.q_proj.weight"), checkpoint.shape(f"{layer}hidden_norm.weight")
    return {
        "a norm on the verifier's state in the first layer (`hidden_norm`)": norm is not None and len(norm) == 1,
        "a first layer that reads embedding and state side by side (twice the hidden size)": (
            query is not None and norm is not None and len(query) == 2 and query[1] == 2 * norm[0]
        ),
        llama.NOT_UNIFIED: not llama.is_unified(checkpoint),
    }


def exported_by_modelopt(checkpoint: Checkpoint) -> bool:
    """ModelOpt's marks: its own switches in `eagle_config`, or a vocabulary map without `t2d`."""
    nested = checkpoint.get("eagle_config")
    own = switches.SERVED.keys() - {"use_aux_hidden_state"}  # which SpecForge writes, too
    switched = isinstance(nested, dict) and not own.isdisjoint(nested)
    return switched or ("d2t" in checkpoint and "t2d" not in checkpoint)


def trained_by_torchspec(checkpoint: Checkpoint) -> bool:
    """TorchSpec's mark. Its files share SpecForge's names, but count layers otherwise and may hold a damaged head."""
    return checkpoint.get("_torchspec_version") is not None or "torchspec_version" in checkpoint.metadata


def trained_by_angelslim(checkpoint: Checkpoint) -> bool:
    """AngelSlim's marks in SpecForge's layout: the verifier's tied embeddings, or which media the draft is for."""
    return checkpoint.get("tie_word_embeddings") is True or checkpoint.get("modal_type") is not None


def made_at_home(checkpoint: Checkpoint) -> bool:
    """The marks of a trainer that takes the name of vLLM's Qwen3 class for a draft that feeds back another state."""
    named = checkpoint.architecture == "Eagle3Qwen3ForCausalLM" and checkpoint.get("target_layers") is not None
    return named or "hidden_state_projection.weight" in checkpoint


def norms_before_fc(checkpoint: Checkpoint) -> list[TensorMap]:
    """The rows of the norms between the verifier's states and `fc` that this file holds, in one spelling."""
    signs = {"input_norm.": NORM_BEFORE_FC, "fc_norm.": NORM_PER_STATE, "aux_norm_": NORM_PER_NAMED_STATE}
    held = {sign for sign in signs if any(name.startswith(sign) for name in checkpoint)}
    if "fc_norm." in held:
        held.discard("aux_norm_")  # beside the current spelling the old one is a tensor without a place
    return [rows for sign, rows in signs.items() if sign in held]


def has_qk_norm(checkpoint: Checkpoint) -> bool:
    return any(name.endswith(("self_attn.q_norm.weight", "self_attn.k_norm.weight")) for name in checkpoint)


def has_attention_bias(names: Iterable[str]) -> bool:
    """Biases on queries, keys, values and the output; servers have no layers with some of them."""
    return any(name.endswith("self_attn.o_proj.bias") for name in names)


def features(checkpoint: Checkpoint) -> dict[str, Any]:
    """What `detect` shows of an EAGLE-3 checkpoint, from its tensors first."""
    head, norm = checkpoint.shape("lm_head.weight"), checkpoint.shape("norm.weight")
    t2d = checkpoint.shape("t2d")
    return {
        "fusion_bias": "fc.bias" in checkpoint,
        "layernorms": False,
        "fc_norm": any(name.startswith(("fc_norm.", "aux_norm_")) for name in checkpoint),
        "norm_before_fc": "input_norm.weight" in checkpoint,
        "qk_norm": has_qk_norm(checkpoint),
        "hidden_size": norm[0] if norm else None,
        "target_hidden_size": checkpoint.get("target_hidden_size"),
        "vocab_size": t2d[0] if t2d else checkpoint.get("vocab_size"),
        "draft_vocab_size": head[0] if head else checkpoint.get("draft_vocab_size"),
        "layers": len({number for name in checkpoint if (number := _layer_number(name)) is not None}),
        "own_embeddings": "embed_tokens.weight" in checkpoint,
    }


def _layer_number(name: str) -> str | None:
    """Which layer a tensor belongs to, in whatever way the file spells it."""
    part, _, rest = name.partition(".")
    number = rest.partition(".")[0]
    if part == "midlayer" and not number.isdigit():
        return "0"
    return number if part in ("layers", "midlayer") else None


def layout(
    checkpoint: Checkpoint,
    facts: Facts,
    config: Facts,
    *extra: TensorMap,
    body: TensorMap = TABLES["body"],
    qk_norm: TensorMap = TABLES["query and key norms (Qwen3 layers)"],
) -> Layout:
    """The rows of this checkpoint. Raises Refused for what no server computes.

    ``facts``: where the layer's facts stand; ``config``: where the draft's own do. ``body`` and ``qk_norm``, which is
    for files that hold such norms: of dialects that have others.
    """
    if findings := switches.not_served(facts):
        raise Refused(findings)
    sizes = llama.sizes(facts)
    target = "target_hidden_size"
    if config.has(target):
        sizes["target"] = Known(config.require({target: int})[target], config.where)
    else:
        sizes["target"] = sizes["hidden"]
    drafts = draft_vocabulary(checkpoint, config, sizes["vocabulary"].value)
    sizes["draft_vocabulary"] = drafts
    vocabulary = read_vocabulary(checkpoint, sizes["vocabulary"].value, drafts.value)
    norms = [qk_norm] if has_qk_norm(checkpoint) else []
    biases = [TABLES["attention biases"]] if has_attention_bias(checkpoint) else []
    rows = TensorMap(body, *norms, *biases, *extra, vocabulary.rows)
    return Layout(table=rows, sizes=sizes, findings=vocabulary.findings)


def always(table: TensorMap, *names: str) -> TensorMap:
    """The same rows, with none of these left to the verifier: for trainers that always save them."""
    return TensorMap(*(replace(row, optional=False) if row.text in names else row for row in table))


def draft_vocabulary(checkpoint: Checkpoint, config: Facts, vocabulary: int) -> Known:
    """How many tokens the draft's head knows: config.json, else the head, else the map, else the whole vocabulary."""
    key = "draft_vocab_size"
    if config.has(key):
        return Known(config.require({key: int})[key], config.where)
    for name in ("lm_head.weight", "d2t"):
        if shape := checkpoint.shape(name):
            return Known(shape[0], name)
    return Known(vocabulary, config.where)


@dataclass(frozen=True, kw_only=True)
class Dialect:
    """What a dialect's code computes. ``norm_before_residual`` is None where the code does not tell."""

    norm_before_residual: bool | None
    norm_output: bool
    convention: Convention
    has_default_ids: bool = True


def describe(draft: Draft, facts: Facts, config: Facts, dialect: Dialect, *, kind: str = "eagle3") -> Described:
    """The unified config, of type ``kind``, of a draft whose tensors are all in place."""
    size, targets = draft.mapped.size, draft.mapped.targets
    qk_norm = any(name.endswith("q_norm.weight") for name in targets)
    layer, findings = llama.layer_config(draft, facts, model_type="qwen3" if qk_norm else "llama")
    layer |= {"num_aux_hidden_states": size("aux"), "attention_bias": has_attention_bias(targets)}
    base, more = envelope(draft, config, model_type=kind, architecture=ARCHITECTURES[kind], width=size("target"))
    residual, about_residual = _residual(draft, config, dialect)
    ids, about_ids = aux_layer_ids(draft, config, dialect.convention, has_default=dialect.has_default_ids)
    findings += [*more, *about_residual, *about_ids, *llama.uneven_layers(draft, "self_attn.q_norm.weight")]
    findings += [*_odd_norms(draft, config), *not_to_be_borrowed(draft, facts, config)]
    if ids is None or residual is None:
        return Described(config=None, findings=tuple(findings))
    own = {
        "draft_vocab_size": size("draft_vocabulary"),
        "norm_before_residual": residual,
        "norm_before_fc": "input_norm.weight" in targets,
        "fc_norm": "fc_norm.0.weight" in targets,
        "norm_output": dialect.norm_output,
        "target_hidden_size": size("target") if size("target") != size("hidden") else None,
        "eagle_aux_hidden_state_layer_ids": ids,
        "embed_requires_grad": False,
        "transformer_layer_config": layer,
    }
    return Described(config=base | own, findings=tuple(findings))


def describe_as_said(draft: Draft, facts: Facts, config: Facts) -> Described:
    """`describe` for a config that says every flag, in the meaning that servers give it."""
    output = config.require({"norm_output": bool})["norm_output"] if config.has("norm_output") else False
    return describe(draft, facts, config, Dialect(norm_before_residual=None, norm_output=output, convention="unified"))


def _odd_norms(draft: Draft, config: Facts) -> list[Finding]:
    """Norms before `fc` that config.json promises or denies against the file, or whose number is not that of states."""
    targets = draft.mapped.targets
    held = {name for name in targets if name.startswith("fc_norm.")}
    promised = {"fc_norm": bool(held), "use_aux_norm": bool(held), "norm_before_fc": "input_norm.weight" in targets}
    states = {f"fc_norm.{n}.weight" for n in range(draft.mapped.size("aux"))} if held else set()
    lacks, extra = "the other verifier states have one", "there is no verifier state for it"
    return [
        *broken_promises(config, promised),
        *broken_promises(switches.of(config), promised),
        *(found("missing-tensor", where=name, message=lacks) for name in sorted(states - held)),
        *(found("unclaimed-tensor", where=name, message=extra) for name in sorted(held - states)),
    ]


def not_to_be_borrowed(draft: Draft, *parts: Facts) -> list[Finding]:
    """Tables that the file lacks and that are not the verifier's."""
    size, targets = draft.mapped.size, draft.mapped.targets
    embedding, head = "embed_tokens.weight", "lm_head.weight"
    why = {}
    if size("target") != size("hidden"):
        wide = f"the verifier's is {size('target')} wide, the draft {size('hidden')}: it cannot be shared"
        why = dict.fromkeys((embedding, head), wide)
    elif embedding in targets and any(part.get("tie_word_embeddings") is True for part in parts):
        why = {head: "it was tied to the draft's own embedding: servers would take the verifier's head"}
    return [found("missing-tensor", where=name, message=words) for name, words in why.items() if name not in targets]


def said_of_the_residual(draft: Draft, config: Facts) -> bool | None:
    """`norm_before_residual` as the user gives it, else as config.json does."""
    key = "norm_before_residual"
    if draft.request.norm_before_residual is not None or not config.has(key):
        return draft.request.norm_before_residual
    return bool(config.require({key: bool})[key])


def _residual(draft: Draft, config: Facts, dialect: Dialect) -> tuple[bool | None, list[Finding]]:
    said, computed = said_of_the_residual(draft, config), dialect.norm_before_residual
    if said is None:
        return computed, [] if computed is not None else [_residual_unknown()]
    if computed is None or said == computed or draft.request.norm_before_residual is not None:
        return said, []
    message = f"says norm_before_residual {said}, and the code of this dialect computes with {computed}"
    hint = "give `--norm-before-residual` or `--no-norm-before-residual`; the wrong one costs acceptance, so measure"
    return None, [found("flag-contradicts-dialect", where=config.where, message=message, hint=hint)]


def _residual_unknown() -> Finding:
    return found(
        "norm-before-residual-unknown", where="config.json",
        message="nothing tells whether the residual is taken before or after hidden_norm",
        hint="`--no-norm-before-residual` for drafts trained with the authors' code, `--norm-before-residual` for "
        "those of speculators' research/eagle3; the wrong one costs most of the acceptance, so measure",
    )  # fmt: skip
