"""EAGLE-1 on its way out: the layouts of vLLM, SGLang and the authors, and what the code behind each cannot compute.

Sources: vLLM 0.32 `llama_eagle.py`, SGLang 0.5.23 `llama_eagle.py` and `eagle_worker_v2.py`, SafeAILab/EAGLE cb7e084
`cnets1.py`.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from spec_convert.errors import Refused
from spec_convert.findings import Finding
from spec_convert.folding import Constant, FoldBias
from spec_convert.formats import Native, UnifiedDraft
from spec_convert.plugins.families import eagle1, out
from spec_convert.rules import found
from spec_convert.tensor_map import TensorMap, derive, drop

LARGEST_RESIDUAL = 1e-4
AUTHORS_VERIFIERS = frozenset(f"{family}ForCausalLM" for family in ("Llama", "Mixtral", "Qwen2", "Qwen3"))
BIAS, EMBEDDING = eagle1.BIAS_TENSOR, out.EMBEDDING
WITHOUT_BIAS = {"fusion_bias": False}


def body(draft: UnifiedDraft) -> TensorMap:
    """The rows back of all but fusion bias and layernorms."""
    rows = eagle1.BODY + eagle1.TABLES["query, key and value biases"]
    return rows.inverse if eagle1.has_qkv_bias(draft.checkpoint) else eagle1.BODY.inverse


def for_vllm(draft: UnifiedDraft) -> Native:
    """vLLM's own EAGLE-1, served with `method: eagle`. Its fusion has no bias: one is folded into the embedding."""
    native = Native(
        table=body(draft),
        config=out.config(draft, "EagleLlamaForCausalLM"),
        sizes=out.sizes(draft),
        findings=out.cannot(
            "vLLM's EAGLE-1",
            {
                "it has no layernorms around the fusion": draft.config["layernorms"],
                **out.servers_limits(out.layer(draft)),
            },
        ),
    )
    if native.findings or BIAS not in draft.checkpoint:
        return native
    return _without_zeros(native) if eagle1.all_zero(draft.checkpoint, BIAS) else _folded(draft, native)


def _without_zeros(native: Native) -> Native:
    table = native.table + TensorMap(drop(BIAS, because="all zeros"))
    findings = (*native.findings, out.changed(BIAS, "holds nothing but zeros: it is left out"))
    return replace(native, table=table, findings=findings, flags=WITHOUT_BIAS, changed={BIAS: "all zeros"})


def _folded(draft: UnifiedDraft, native: Native) -> Native:
    checkpoint = draft.checkpoint
    source = EMBEDDING if EMBEDDING in checkpoint else out.BORROWED[EMBEDDING]
    told = _measured(draft, fold := _fold(draft))
    because = "written with the fusion bias folded into it"
    table = out.leaving(native.table, EMBEDDING) + TensorMap(
        drop(source, because=because),
        drop(BIAS, because="folded into the embedding"),
        derive(EMBEDDING, of=("fc.weight", BIAS, source), via=fold),
    )
    changed = {BIAS: "folded into the embedding", EMBEDDING: because}
    findings = (*native.findings, out.changed(EMBEDDING, told))
    return replace(native, table=table, findings=findings, changed=changed, flags=WITHOUT_BIAS)


def _fold(draft: UnifiedDraft) -> FoldBias:
    own = draft.checkpoint.tensors
    embedding = own[EMBEDDING].dtype if EMBEDDING in own else out.verifier_table(draft, EMBEDDING)[1]
    return FoldBias((own["fc.weight"].dtype, own[BIAS].dtype, embedding), draft.dtype)


def _measured(draft: UnifiedDraft, fold: FoldBias) -> str:
    """What the fold loses, in words. Raises Refused when that is too much."""
    checkpoint, verifier = draft.checkpoint, draft.verifier
    weight, bias = checkpoint.read("fc.weight"), checkpoint.read(BIAS)
    own = EMBEDDING in checkpoint
    table = checkpoint.read(EMBEDDING) if own else verifier.checkpoint.read(verifier.embedding_name)
    condition = f"condition number of fc's embedding half {fold.condition(weight):.1e} (1-norm)"
    try:
        residual = fold.residual(weight, bias, table)
    except ValueError as impossible:
        raise Refused([_too_much(f"{impossible}: {condition}", out.HINT)]) from impossible
    told = f"largest |W(e'-e) - b| / |b| over {len(table)} tokens, as stored, {residual:.1e}; {condition}"
    if not residual <= LARGEST_RESIDUAL:
        finer = replace(fold, dtype="F32").residual(weight, bias, table) <= LARGEST_RESIDUAL
        hint = "`--dtype float32` stores the sum finely enough" if finer and draft.dtype != "F32" else out.HINT
        raise Refused([_too_much(f"{told}: more than {LARGEST_RESIDUAL:.0e}", hint)])
    return f"the fusion bias is folded into it: {told}. An engine in float16 or bfloat16 rounds the sum once more"


def _too_much(message: str, hint: str) -> Finding:
    return found("export-residual", where=BIAS, message=message, hint=hint)


def for_sglang(draft: UnifiedDraft) -> Native:
    """SGLang's EAGLE-1. Its fusion always has a bias: zeros are written for a draft that has none."""
    findings = out.cannot(
        "SGLang",
        {
            "it has no layernorms around the fusion": draft.config["layernorms"],
            "it has no biases on queries, keys and values alone": out.layer(draft)["qkv_bias"],
            "it replaces the draft's own embedding by the verifier's, which is another": (
                EMBEDDING in draft.checkpoint and not out.is_the_verifiers(draft, EMBEDDING)
            ),
            **out.servers_limits(out.layer(draft)),
        },
    )
    native = Native(
        table=body(draft),
        config=out.config(draft, eagle1.SGLANG, leave_out=["qkv_bias"]),
        sizes=out.sizes(draft),
        findings=findings,
    )
    if BIAS in draft.checkpoint and not eagle1.all_zero(draft.checkpoint, BIAS):
        return replace(native, table=native.table + eagle1.FUSION_BIAS.inverse)
    if BIAS in draft.checkpoint:
        native = _without_zeros(native)
    zeros = derive(BIAS, of="fc.weight", via=Constant("zeros", ("hidden",), draft.dtype))
    return replace(native, table=native.table + TensorMap(zeros))


def for_authors(draft: UnifiedDraft) -> Native:
    """SafeAILab's own layout: `bias` in the config, and always an embedding in the file."""
    facts = out.layer(draft)
    findings = out.cannot(
        "SafeAILab's EAGLE-1",
        {
            "it has no layernorms around the fusion": draft.config["layernorms"],
            "its heads are hidden_size / num_attention_heads wide": (
                facts["head_dim"] * facts["num_attention_heads"] != facts["hidden_size"]
            ),
            **authors_limits(draft, AUTHORS_VERIFIERS),
        },
    )
    table = body(draft)
    bias = BIAS in draft.checkpoint
    changed = {}
    if EMBEDDING not in draft.checkpoint and not findings:
        row, said = out.borrow(draft, EMBEDDING)
        table, changed = out.leaving(table, EMBEDDING) + row, {EMBEDDING: said}
        findings = (out.changed(EMBEDDING, said),)
    return Native(
        table=table + (eagle1.FUSION_BIAS.inverse if bias else TensorMap()),
        config=out.config(draft, "LlamaForCausalLM", bias=bias),
        sizes=out.sizes(draft),
        findings=findings,
        changed=changed,
    )


def authors_limits(draft: UnifiedDraft, models: Collection[str]) -> dict[str, bool]:
    """What the authors' code does not know. ``models``: the architectures of the verifiers that it runs."""
    facts, verifiers = out.layer(draft), draft.verifier.architectures
    scaling = facts["rope_scaling"]
    known = scaling is None or (scaling.get("type") in ("linear", "dynamic") and scaling.keys() == {"type", "factor"})
    return {
        f"it runs no verifier of the architecture {', '.join(verifiers)}": set(models).isdisjoint(verifiers),
        "it scales rotary embeddings only by `type` linear or dynamic and a `factor`": not known,
        "it scales rotary embeddings only at the base 10000": scaling is not None and facts["rope_theta"] != 10000,
    }
