"""The draft at work: what `validate` says after it has helped a small verifier to answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from spec_convert.evaluation.prompt import Prompt

from ..tiny import Tiny
from .trigger import Findings, Make, Triggers, validate

TRIGGERS = Triggers()


def at_work(draft: Tiny, verifier: Path, *, least: float = 3.0, tokens: int = 12) -> Findings:
    asked = {"prompts": [Prompt(turns=("t3 t4 t5",))], "min_acceptance_length": least, "max_tokens": tokens}
    return validate(draft, verifier=verifier, level="acceptance", **asked)


def monotonous(verifier: Path) -> Path:
    """To which all words are the same, so that it says one for ever."""
    tensors = load_file(verifier / "model.safetensors")
    tensors["model.embed_tokens.weight"][:] = tensors["model.embed_tokens.weight"][0].clone()
    save_file(tensors, verifier / "model.safetensors", {"format": "pt"})
    return verifier


def repeating(draft: Tiny, times: float = 1.0) -> Tiny:
    """A draft that passes the verifier's state on: it proposes once more what the verifier has just said."""
    draft.tensors["fc.weight"] = torch.cat([torch.zeros(16, 16), times * torch.eye(16)], dim=1)
    for name in ("self_attn.o_proj", "mlp.down_proj"):
        draft.tensors[f"layers.0.{name}.weight"] *= 1e-6
    return draft


@TRIGGERS.rule("acceptance-too-low")
def a_draft_that_is_always_wrong(make: Make, broken: bool) -> Findings:
    return at_work(repeating(make.eagle(), -1.0 if broken else 1.0), monotonous(make.talking()))


@TRIGGERS.rule("not-evaluated")
def a_verifier_without_its_tokenizer(make: Make, broken: bool) -> Findings:
    draft, verifier = repeating(make.eagle()), monotonous(make.talking())
    if broken:
        for file in verifier.glob("tokenizer*"):
            file.unlink()
    return at_work(draft, verifier)


@TRIGGERS.rule("acceptance-measured")
def a_draft_that_was_put_to_work(make: Make, broken: bool) -> Findings:
    draft, verifier = repeating(make.eagle()), monotonous(make.talking())
    return at_work(draft, verifier) if broken else validate(draft, verifier=verifier, level="forward")


@TRIGGERS.rule("not-lossless")
def a_verifier_that_reads_several_tokens_otherwise_than_one_by_one(make: Make, broken: bool) -> Findings:
    """LongRoPE: a pass that reaches beyond the original positions rotates all of its tokens in the other way."""
    factors = {"short_factor": [1.0] * 3, "long_factor": [8.0 if broken else 1.0] * 3}
    rotation: dict[str, Any] = {"rope_type": "longrope", "original_max_position_embeddings": 16, "rope_theta": 10000.0}
    verifier = make.talking(max_position_embeddings=64, rope_parameters=rotation | factors)
    return at_work(repeating(make.eagle()), verifier, least=1.1, tokens=50)
