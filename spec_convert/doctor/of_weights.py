"""What may be wrong in the file: what `d2t` means, and weights that are not the draft's own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial

import torch
from torch import Tensor

from spec_convert.doctor.hypothesis import Base, Fix, Hypothesis
from spec_convert.doctor.parts import Parts
from spec_convert.unified import Eagle3Config

AGAIN = "export the draft again from its trainer, or take another checkpoint"


def of_weights(parts: Parts, base: Base) -> Iterator[Hypothesis]:
    if isinstance(parts.config, Eagle3Config):
        yield from _of_vocabulary(parts, parts.config)
        yield from _of_norm(parts, base)
        yield from _of_head(parts)
    if "embed_tokens.weight" in parts.tensors:
        yield Hypothesis(
            code="embedding-of-the-verifier", aspect="embedding",
            says="its `embed_tokens.weight` is none that it learned with; the verifier's embedding fits",
            edit=lambda parts: parts.holding({"embed_tokens.weight": None}),
            fix=Fix(words="leave `embed_tokens.weight` out of the file: servers then take the verifier's"),
        )  # fmt: skip


def _of_vocabulary(parts: Parts, config: Eagle3Config) -> Iterator[Hypothesis]:
    d2t, t2d = parts.tensors.get("d2t"), parts.tensors.get("t2d")
    if d2t is not None and d2t.is_floating_point():  # rounded, whatever it meant
        d2t = None
    marked = None if t2d is None else t2d.nonzero()[:, 0]
    readings: list[tuple[str, str, Tensor | None, Fix]] = [
        ("d2t-absolute", "`d2t` holds ids of the verifier, and is read as offsets", d2t, Fix(flags=())),
        (
            "d2t-of-t2d", "`d2t` is not of this draft; the tokens that `t2d` marks are", marked,
            Fix(words="make `d2t` of `t2d`: the marked ids in order, each less its own place"),
        ),
        (
            "d2t-unused", "the draft's ids are the verifier's first ones, and `d2t` maps them elsewhere",
            None if d2t is None else torch.arange(len(d2t)), Fix(words="fill `d2t` with zeros"),
        ),
        (
            "t2d-of-d2t", "`t2d` is not of this draft; the tokens that `d2t` maps to are",
            None if d2t is None else d2t + torch.arange(len(d2t)), Fix(words="mark in `t2d` the tokens of `d2t`"),
        ),
    ]  # fmt: skip
    known: list[Mapping[str, Tensor]] = [parts.tensors]
    for code, says, ids, fix in readings:
        made = None if ids is None else _vocabulary(ids, config)
        if made is None or any(_holds(one, made) for one in known):
            continue
        known.append(made)
        yield Hypothesis(code=code, aspect="vocabulary", says=says, edit=partial(Parts.holding, changed=made), fix=fix)


def _holds(tensors: Mapping[str, Tensor], made: Mapping[str, Tensor]) -> bool:
    return all(name in tensors and torch.equal(tensors[name], tensor) for name, tensor in made.items())


def _vocabulary(ids: Tensor, config: Eagle3Config) -> dict[str, Tensor] | None:
    """`d2t` and `t2d` for draft tokens with these ids of the verifier; None when they cannot be that."""
    size, own = config.transformer_layer_config.vocab_size, config.draft_vocab_size
    if len(ids) != own or int(ids.min()) < 0 or int(ids.max()) >= size or len(set(ids.tolist())) != own:
        return None
    marks = torch.zeros(size, dtype=torch.bool).index_fill(0, ids, True)
    return {"d2t": ids - torch.arange(own), "t2d": marks}


def _of_norm(parts: Parts, base: Base) -> Iterator[Hypothesis]:
    if base.norm.shape == parts.tensors["norm.weight"].shape:
        yield Hypothesis(
            code="norm-of-the-verifier", aspect="final norm",
            says="its `norm.weight` is none that it learned with; that of the verifier's final norm fits",
            edit=lambda parts: parts.holding({"norm.weight": base.norm.cpu()}),
            fix=Fix(words=f"`norm.weight` was lost on the way here: {AGAIN}"),
        )  # fmt: skip
    yield Hypothesis(
        code="norm-of-ones", aspect="final norm", says="it learned without the weight of `norm` that the file holds",
        edit=lambda parts: parts.holding({"norm.weight": torch.ones_like(parts.tensors["norm.weight"])}),
        fix=Fix(words=f"`norm.weight` is not of this draft: {AGAIN}"),
    )  # fmt: skip


def _of_head(parts: Parts) -> Iterator[Hypothesis]:
    head, theirs = parts.tensors.get("lm_head.weight"), parts.tables.lm_head
    if head is not None and theirs is not None and head.shape[1] == theirs.shape[1]:
        yield Hypothesis(
            code="head-of-the-verifier", aspect="head",
            says="its `lm_head.weight` is none that it learned with; the verifier's head fits", edit=_with_their_head,
            fix=Fix(words=f"`lm_head.weight` is not of this draft: {AGAIN}, or put the verifier's rows there"),
        )  # fmt: skip


def _with_their_head(parts: Parts) -> Parts:
    assert parts.tables.lm_head is not None, "asked for only when there is one"
    d2t = parts.tensors.get("d2t")
    theirs = parts.tables.lm_head
    rows = theirs if d2t is None else theirs[(d2t + torch.arange(len(d2t))).clamp(0, len(theirs) - 1)]
    return parts.holding({"lm_head.weight": rows})
