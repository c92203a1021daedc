"""The loss on logits, a tile of rows at a time: no more than one tile of logits is ever held.

Each tile is computed forward and backward at once, so that nothing of it need be kept or computed again. The
verifier's word is asked for once a row, for all steps whose chains guess the same token.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from spec_convert.training.losses.distributions import overlap
from spec_convert.training.losses.mix import Mix
from spec_convert.training.objectives.teacher import Teacher, Word, tile_of


@dataclass(frozen=True, slots=True, eq=False)
class Guesses:
    """Rows of a draft's states, [K, U, H]: at each of K steps one chain, or none, guesses after each of U tokens.

    A row that no chain has may hold anything; its ``coefficients`` are zero.
    """

    states: Tensor  # [K, U, H], what the head reads
    final: Tensor  # [U, Ht], what the verifier's head reads
    coefficients: Tensor  # [K, U], by what the loss of each row is multiplied


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """``hits`` and ``alpha``: None unless they were asked for."""

    loss: Tensor  # a number: the losses, multiplied and added; it has a gradient
    losses: Tensor  # [K, U]
    hits: Tensor | None  # [K, U] bool: the draft's likeliest token is the verifier's
    alpha: Tensor | None  # [K, U]: the probability that the draft's token is accepted at temperature 1


def judge(guesses: Guesses, head: Tensor, teacher: Teacher, mix: Mix, *, measure: bool) -> Judged:
    """The ``mix`` of losses on the logits of ``head`` [Vd, H], trained or not. ``measure``: hits and alpha too."""
    given = (guesses.states, head, guesses, teacher, mix, measure)
    loss, losses, hits, alpha = _Tiles.apply(*given)  # type: ignore[no-untyped-call]
    return Judged(loss, losses, hits if measure else None, alpha if measure else None)


class _Tiles(torch.autograd.Function):
    @staticmethod
    def forward(  # noqa: PLR0913, PLR0917  torch's calling convention
        ctx: Any, states: Tensor, head: Tensor, guesses: Guesses, teacher: Teacher, mix: Mix, measure: bool
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        for_states, for_head = (
            torch.zeros_like(tensor) if wanted else None
            for tensor, wanted in zip((states, head), ctx.needs_input_grad[:2], strict=True)
        )
        coefficients = guesses.coefficients
        losses, alpha = torch.zeros_like(coefficients), torch.zeros_like(coefficients)
        hits = torch.zeros_like(coefficients, dtype=torch.bool)
        computed = _computed(states)
        cast = head.to(computed)
        with torch.autocast(states.device.type, enabled=False):
            asked = states.shape[1] if mix or measure else 0
            for rows in torch.split(torch.arange(asked, device=states.device), tile_of(head)):
                word = teacher.word(guesses.final[rows], whole=measure or mix.needs_normaliser)
                for step, some in enumerate(states[:, rows].to(computed)):
                    logits = (some @ cast.mT).to(coefficients.dtype)
                    if measure:
                        hits[step, rows], alpha[step, rows] = _measured(logits, word, teacher)
                    if mix and not any(ctx.needs_input_grad):
                        losses[step, rows] = mix.of_logits(logits, word.target)
                    elif mix:
                        losses[step, rows], towards = _loss(logits, word, mix, coefficients[step, rows])
                        if for_states is not None:
                            for_states[step, rows] = (towards.to(computed) @ cast).to(states.dtype)
                        if for_head is not None:
                            _add_product(for_head, towards.to(computed).mT, some)
        ctx.save_for_backward(for_states, for_head)
        ctx.mark_non_differentiable(losses, hits, alpha)
        return (losses * coefficients).sum(), losses, hits, alpha

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        kept = [tensor if tensor is None else tensor * gradients[0] for tensor in ctx.saved_tensors]
        return (*kept, None, None, None, None)


def _loss(logits: Tensor, word: Word, mix: Mix, coefficients: Tensor) -> tuple[Tensor, Tensor]:
    """The loss of each row, and the gradient of all of them with their coefficients."""
    with torch.enable_grad():
        logits = logits.requires_grad_()
        losses = mix.of_logits(logits, word.target)
        (towards,) = torch.autograd.grad(losses, logits, coefficients)
    return losses.detach(), towards


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """``total += left @ right``; where all are of one type without a second matrix of the size of ``total``."""
    if total.dtype == left.dtype:
        total.addmm_(left, right)
    else:
        total += left @ right


def _measured(logits: Tensor, word: Word, teacher: Teacher) -> tuple[Tensor, Tensor]:
    assert word.likeliest is not None, "asked for"
    hits = teacher.names(logits.argmax(dim=-1)).eq(word.likeliest)
    return hits, overlap(logits, word.target)


def _computed(states: Tensor) -> torch.dtype:
    """What products are computed in: the states' own type, unless autocast says another."""
    kind = states.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else states.dtype
