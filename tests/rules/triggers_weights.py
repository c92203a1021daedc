"""Numbers: matrices that hold nothing, heads cut wrongly, tables against the verifier's, its tokenizer."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from ..tiny import Tiny
from .trigger import Findings, Make, Triggers, validate

TRIGGERS = Triggers()


def table_of(verifier: Path, name: str) -> Tensor:
    return load_file(verifier / "model.safetensors")[name]


def with_tokenizer(verifier: Path, vocabulary: dict[str, int], added: dict[str, int]) -> Path:
    tokens = [{"content": text, "id": number} for text, number in added.items()]
    (verifier / "tokenizer.json").write_text(json.dumps({"model": {"vocab": vocabulary}, "added_tokens": tokens}))
    return verifier


def words(count: int) -> dict[str, int]:
    return {f"word{number}": number for number in range(count)}


@TRIGGERS.rule("all-zero")
def a_matrix_that_was_never_loaded(make: Make, broken: bool) -> Findings:
    draft = make.eagle()
    if broken:
        draft.tensors["layers.0.mlp.up_proj.weight"].zero_()
    return validate(draft, level="tensors")


@TRIGGERS.rule("idle-layer")
def a_layer_that_hands_on_what_it_is_given(make: Make, broken: bool) -> Findings:
    """What `export` makes of an MLP draft; one zero matrix fewer, and the others are holes."""
    draft = make.eagle()
    if broken:
        for name, tensor in draft.tensors.items():
            if "self_attn" in name or "mlp" in name:
                tensor.zero_()
    return validate(draft, level="tensors")


@TRIGGERS.rule("constant-matrix")
def a_matrix_that_was_never_filled(make: Make, broken: bool) -> Findings:
    draft = make.eagle()
    if broken:
        draft.tensors["layers.0.mlp.up_proj.weight"].fill_(0.02)
    return validate(draft, level="tensors")


@TRIGGERS.rule("head-rows-duplicated")
def a_head_cut_with_offsets(make: Make, broken: bool) -> Findings:
    draft: Tiny = make.eagle3()
    full, offsets = torch.randn(32, 16), draft.tensors["d2t"]
    draft.tensors["lm_head.weight"] = full[offsets if broken else offsets + torch.arange(20)]
    return validate(draft, level="tensors")


@TRIGGERS.rule("head-of-other-tokens")
def a_head_cut_after_so_many_rows(make: Make, broken: bool) -> Findings:
    draft: Tiny = make.eagle3()
    full, offsets = table_of(draft.verifier, "lm_head.weight"), draft.tensors["d2t"]
    draft.tensors["lm_head.weight"] = full[:20] if broken else full[offsets + torch.arange(20)]
    return validate(draft, verifier=draft.verifier, level="tensors")


@TRIGGERS.rule("head-not-compared")
def a_head_whose_verifier_is_not_given(make: Make, broken: bool) -> Findings:
    draft: Tiny = make.eagle()
    draft.config = {"model_type": "eagle", "model": draft.config}
    draft.tensors["lm_head.weight"] = table_of(draft.verifier, "lm_head.weight")
    return validate(draft, verifier=None if broken else draft.verifier)


@TRIGGERS.rule("embedding-is-the-verifiers")
def a_copy_that_was_kept_frozen(make: Make, broken: bool) -> Findings:
    draft: Tiny = make.eagle()
    if broken:
        draft.tensors["embed_tokens.weight"] = table_of(draft.verifier, "model.embed_tokens.weight")
    return validate(draft, verifier=draft.verifier, level="tensors")


@TRIGGERS.rule("embedding-of-its-own")
def an_embedding_that_is_no_copy(make: Make, broken: bool) -> Findings:
    draft: Tiny = make.eagle()
    table = table_of(draft.verifier, "model.embed_tokens.weight")
    draft.tensors["embed_tokens.weight"] = torch.randn(32, 16) if broken else table
    return validate(draft, verifier=draft.verifier, level="tensors")


@TRIGGERS.rule("tokenizer-too-large")
def the_tokenizer_of_another_model(make: Make, broken: bool) -> Findings:
    verifier = with_tokenizer(make.verifier, words(40 if broken else 32), {})
    return validate(make.eagle(), verifier=verifier, level="tensors")


@TRIGGERS.rule("added-tokens-too-large")
def a_token_for_images(make: Make, broken: bool) -> Findings:
    verifier = with_tokenizer(make.verifier, words(31), {"<image>": 32 if broken else 31})
    return validate(make.eagle(), verifier=verifier, level="tensors")
