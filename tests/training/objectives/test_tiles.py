"""The loss in tiles against the same loss on all logits at once, in float32 and with products in bfloat16."""

from __future__ import annotations

import pytest
import torch

from spec_convert.training.losses.mix import Mix
from spec_convert.training.losses.target import Target
from spec_convert.training.objectives import tiles
from spec_convert.training.objectives.teacher import Teacher
from spec_convert.training.objectives.tiles import Guesses, judge

STEPS, ROWS, SIZE, VOCABULARY = 2, 50, 32, 96
KEPT = torch.arange(0, VOCABULARY, 2)


@pytest.mark.parametrize("mix", ["soft_ce", "tv=0.5,reverse_kl=1"])
@pytest.mark.parametrize(
    ("kind", "exactness"),
    [(torch.float32, {"rtol": 1e-5, "atol": 1e-7}), (torch.bfloat16, {"rtol": 2e-2, "atol": 2e-4})],
)
def test_loss_and_gradients_are_those_of_all_logits_at_once(
    mix: str, kind: torch.dtype, exactness: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiles, "tile_of", lambda head: 16)
    random = torch.Generator().manual_seed(0)
    states, final, verifier, head = (
        torch.randn(shape, generator=random)
        for shape in ((STEPS, ROWS, SIZE), (ROWS, SIZE), (VOCABULARY, SIZE), (len(KEPT), SIZE))
    )
    coefficients = torch.rand(STEPS, ROWS, generator=random) / ROWS
    leaves = [states.requires_grad_(), head.requires_grad_()]

    said = (final.to(kind) @ verifier.to(kind).mT).float()
    target = Target(said[:, KEPT], said.logsumexp(-1))
    logits = (states.to(kind) @ head.to(kind).mT).float()
    losses = torch.stack([Mix.parse(mix).of_logits(one, target) for one in logits])
    expected = (losses * coefficients).sum()

    teacher = Teacher(verifier.to(kind), KEPT)
    with torch.autocast("cpu", torch.bfloat16, enabled=kind == torch.bfloat16):
        judged = judge(Guesses(states, final, coefficients), head, teacher, Mix.parse(mix), measure=False)

    torch.testing.assert_close(judged.loss, expected, rtol=1e-5, atol=0)
    torch.testing.assert_close(judged.losses, losses.detach(), rtol=1e-5, atol=1e-5)
    for found, wanted in zip(
        torch.autograd.grad(judged.loss, leaves), torch.autograd.grad(expected, leaves), strict=True
    ):
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, wanted, **exactness)
