"""The objective of chains is HASS as its paper writes it: states moved to the right, later keys on diagonals."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from spec_convert.models.eagle import EagleDraft
from spec_convert.models.rope import rotate
from spec_convert.training.batches.batch import Batch
from spec_convert.training.losses.mix import Mix
from spec_convert.training.objectives.chains import ChainObjective, Stage
from spec_convert.training.objectives.teacher import Teacher

from ..drawing import EAGLE, SIZE, drawn_batch, drawn_draft

STEPS, ROWS, FIRST_ANSWER = 3, 14, 5


def test_loss_and_gradients_are_those_of_the_paper() -> None:
    draft, batch = drawn_draft(EAGLE), drawn_batch([ROWS], width=SIZE)
    assert isinstance(draft, EagleDraft)
    batch = replace(batch, final=batch.states, loss_mask=batch.loss_mask & (torch.arange(ROWS) >= FIRST_ANSWER))
    stages = [Stage(Mix.parse("smooth_l1=1.0,soft_ce=0.1,top_k=1.0"))]
    objective = ChainObjective(
        draft, Teacher(draft.head, None), stages, steps=STEPS, decay=1, detach=True, noise=False
    )  # fmt: skip
    loss = objective(batch, 1 / objective.weights(batch), measure=False, seed=0).loss
    expected = as_in_the_paper(draft, batch)
    torch.testing.assert_close(loss, expected, rtol=1e-11, atol=0)
    parameters = list(draft.parameters())
    for one, other in zip(
        torch.autograd.grad(loss, parameters), torch.autograd.grad(expected, parameters), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


def as_in_the_paper(draft: EagleDraft, batch: Batch) -> Tensor:
    """Row i of every step embeds token i + 1 at position i and guesses the state of that token; T rows a step."""
    rotation, layer = draft.rope(torch.arange(ROWS)[None]), draft.layers.get_submodule("0")
    embedding = draft.embed_tokens.weight[batch.input_ids.roll(-1)]  # type: ignore[index]  a table
    learned = (batch.loss_mask[1:-1] & batch.loss_mask[2:]).nonzero()[:, 0]
    assert len(learned) > 1
    wanted = batch.states[learned + 1]
    p = (wanted @ draft.head.T).softmax(-1)
    fed, held, total = batch.states, list[tuple[Tensor, Tensor]](), torch.zeros((), dtype=torch.float64)
    for step in range(STEPS):
        fused = draft.fc(torch.cat((embedding, fed), dim=-1))[None]
        attention = layer.self_attn
        query, key, value = (
            part(fused).unflatten(-1, (-1, attention.head_dim)).transpose(1, 2)
            for part in (attention.q_proj, attention.k_proj, attention.v_proj)
        )
        held.append((rotate(key, rotation)[0], value[0]))
        mixed = torch.stack([seen_by(row, step, rotate(query, rotation)[0, :, row], held) for row in range(ROWS)])
        x = fused[0] + attention.o_proj(mixed.flatten(1))
        guessed = x + layer.mlp(layer.post_attention_layernorm(x))
        log_q = (guessed[learned] @ draft.head.T).log_softmax(-1)
        regression = F.smooth_l1_loss(guessed[learned], wanted, reduction="none").mean(-1)
        likeliest = p.topk(10).indices
        top = -(p * log_q).gather(1, likeliest).sum(-1)
        total = total + (regression - 0.1 * (p * log_q).sum(-1) + top).mean()
        fed = torch.cat((batch.states[:1], guessed[:-1].detach()))
    return total


def seen_by(row: int, step: int, query: Tensor, held: list[tuple[Tensor, Tensor]]) -> Tensor:
    """[heads, D]: ``held`` has keys and values of every step. Of the last ``step`` columns each is of its own step."""
    columns = {column: max(0, column - (row - step)) for column in range(row + 1)}
    key, value = (
        torch.stack([held[of][part][:, column] for column, of in columns.items()], dim=1).repeat_interleave(
            len(query) // len(held[0][0]), dim=0
        )
        for part in (0, 1)
    )
    share = (key @ query[:, :, None] * query.shape[-1] ** -0.5).softmax(dim=1)
    return (share * value).sum(dim=1)
