"""The objective of chains against the formulas written out row by row, and what must not change it."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from spec_convert.errors import UsageError
from spec_convert.models.contract import Draft, DraftStates
from spec_convert.training.batches.batch import Batch
from spec_convert.training.batches.loading import padded
from spec_convert.training.losses.mix import Mix
from spec_convert.training.objectives import chains, tiles
from spec_convert.training.objectives import teacher as teachers
from spec_convert.training.objectives.chains import ChainObjective, Stage
from spec_convert.training.objectives.objective import Outcome
from spec_convert.training.objectives.sums import Sums
from spec_convert.training.objectives.teacher import Teacher
from spec_convert.training.trainer.metrics import metrics_of
from spec_convert.training.unrolling.unroll import unroll

from ..drawing import EAGLE, EAGLE3, MLP, SIZE, VOCABULARY, document, drawn_batch, drawn_draft, drawn_verifier

STEPS = 3
MIXES = ("soft_ce", "smooth_l1=1.0,soft_ce=0.1,top_k=1.0", "tv", "smooth_l1")


def objective_of(draft: Draft, mix: str = "soft_ce", *, steps: int = STEPS, detach: bool = False) -> ChainObjective:
    head = drawn_verifier().lm_head
    assert head is not None
    kept = draft.kept_tokens()
    stages = [Stage(Mix.parse(mix))]
    return ChainObjective(draft, Teacher(head, kept), stages, steps=steps, decay=0.8, detach=detach, noise=False)


def run(objective: ChainObjective, batch: Batch, *, measure: bool = True) -> Outcome:
    """With shares that make the loss a mean at each step, less at each later one."""
    weights = objective.weights(batch)
    share = torch.where(weights > 0, objective.decay / weights, 0.0)
    return objective(batch, share, measure=measure, seed=0)


def gradients(objective: ChainObjective, loss: Tensor) -> dict[str, Tensor]:
    named = dict(objective.draft.named_parameters())
    return dict(zip(named, torch.autograd.grad(loss, list(named.values()), materialize_grads=True), strict=True))


@pytest.mark.parametrize("mix", MIXES)
@pytest.mark.parametrize("reduced", [True, False])
def test_loss_and_gradients_are_the_formula_row_by_row(mix: str, reduced: bool) -> None:
    draft = drawn_draft(EAGLE3) if reduced else drawn_draft(EAGLE)
    batch = drawn_batch([8, 3, 11], width=3 * SIZE if reduced else SIZE)
    objective = objective_of(draft, mix)
    outcome = run(objective, batch)
    expected = written_out(objective, batch, Mix.parse(mix))
    torch.testing.assert_close(outcome.loss, expected, rtol=1e-10, atol=1e-12)
    there, wanted = gradients(objective, outcome.loss), gradients(objective, expected)
    for name in wanted:
        torch.testing.assert_close(there[name], wanted[name], rtol=1e-8, atol=1e-11, msg=name)


def written_out(objective: ChainObjective, batch: Batch, mix: Mix) -> Tensor:
    """The loss of every chain on its own: what is learned is read from the mask, token by token."""
    head, kept, draft = objective.teacher.head, objective.teacher.kept, objective.draft
    everywhere = torch.arange(len(batch))
    chain = unroll(draft, batch, batch.states, STEPS, rows=everywhere, detach=False)
    total = torch.zeros((), dtype=torch.float64)
    for step in range(STEPS):
        losses = []
        for start, end in pairwise(batch.bounds):
            for row in range(start, end - step - 2):
                embedded, guessed = row + 1 + step, row + 2 + step
                if not (batch.loss_mask[embedded] and batch.loss_mask[guessed]):
                    continue
                said = head @ batch.final[embedded]
                said_here = said if kept is None else said[kept]
                p, true = said_here.softmax(0), (said_here - said.logsumexp(0)).exp()
                log_q = (draft.head @ chain[step].for_head[row]).log_softmax(0)
                off = chain[step].hidden_states[row] - batch.final[embedded]
                terms = {
                    "soft_ce": -(p * log_q).sum(),
                    "top_k": -(p.topk(10).values * log_q[p.topk(10).indices]).sum(),
                    "tv": 1 - torch.minimum(true, log_q.exp()).sum(),
                    "smooth_l1": torch.where(off.abs() < 1, off.square() / 2, off.abs() - 0.5).mean(),
                }  # fmt: skip
                losses.append(sum(weight * terms[name] for name, weight in mix.terms))
        total = total + 0.8**step * torch.stack(losses).mean()
    return total


def test_packed_is_the_same_as_one_by_one_and_padding_adds_nothing() -> None:
    objective, batch = objective_of(drawn_draft(EAGLE3)), drawn_batch([9, 4, 12])
    share = torch.ones(STEPS)

    def sums(one: Batch) -> Tensor:
        return objective(one, share, measure=True, seed=0).sums.stacked()

    together = sums(batch)
    torch.testing.assert_close(sum(sums(document(batch, number)) for number in range(3)), together)
    torch.testing.assert_close(sums(padded(batch, 32)), together)
    assert (together[1] == objective.weights(batch)).all()


def test_what_is_learned_of_a_chat_of_two_turns() -> None:
    """Tokens 3-5 and 8-9 are answers, each with its end of turn."""
    batch = drawn_batch([11])
    batch.loss_mask[:] = torch.tensor([0, 0, 0, 1, 1, 1, 0, 0, 1, 1, 0], dtype=torch.bool)
    sums = run(objective_of(drawn_draft(EAGLE3)), batch).sums
    # Embedded and guessed: (3, 4), (4, 5), (8, 9); at every step the same pairs, from rows further back.
    assert sums.weight.tolist() == sums.rows.tolist() == [3, 3, 3]
    # Whole windows: of two tokens (3, 4), (4, 5), (8, 9); of three (3, 4, 5); of four none.
    assert sums.windows.tolist() == [3, 1, 0]


class Perfect(Draft):
    """Its state beside a token is what the verifier's head will read there."""

    def __init__(self, table: Tensor, head: Tensor) -> None:
        super().__init__()
        self.table = nn.Parameter(table)
        self.lm_head = nn.Module()
        self.lm_head.weight = head

    def states(self, input_ids: Tensor, *rest: object, **more: object) -> DraftStates:
        return DraftStates(self.table[input_ids], self.table[input_ids])


def perfect(kept: Tensor | None = None) -> tuple[ChainObjective, Batch]:
    """A verifier whose state depends on the last token alone, and its perfect draft."""
    verifier, batch = drawn_verifier(), drawn_batch([20, 12], width=SIZE)
    assert verifier.embed_tokens is not None
    assert verifier.lm_head is not None
    batch.final[:] = verifier.embed_tokens[batch.input_ids]
    head = verifier.lm_head if kept is None else verifier.lm_head[kept]
    teacher, stages = Teacher(verifier.lm_head, kept), [Stage(Mix.parse("soft_ce"))]
    draft = Perfect(verifier.embed_tokens, head)
    return ChainObjective(draft, teacher, stages, steps=STEPS, decay=1, detach=False, noise=False), batch


def test_a_perfect_draft_is_right_everywhere() -> None:
    sums = run(*perfect()).sums
    assert torch.equal(sums.hits, sums.rows)
    assert torch.equal(sums.joint, sums.windows)
    torch.testing.assert_close(sums.alpha, sums.windows)
    assert metrics_of(sums, torch.ones(STEPS)).tau == STEPS + 1


def test_a_token_that_the_draft_cannot_say_is_a_miss() -> None:
    kept = torch.arange(0, VOCABULARY, 2)
    objective, batch = perfect(kept)
    sums, likeliest = run(objective, batch).sums, (batch.final @ objective.teacher.head.mT).argmax(dim=-1)
    sayable = torch.isin(likeliest, kept)
    learned = batch.loss_mask[1:-1] & batch.loss_mask[2:] & (batch.documents[:-2] == batch.documents[2:])
    assert sums.hits[0] == int((sayable[1:-1] & learned).sum())
    assert 0 < sums.hits[0] < sums.rows[0]
    assert (sums.alpha < sums.windows).all()


def test_joint_counts_only_chains_that_were_right_so_far() -> None:
    objective, batch = objective_of(drawn_draft(EAGLE3)), drawn_batch([40, 30], answers=0.9)
    objective.draft.get_parameter("lm_head.weight").data = objective.teacher.pruned * 1.0
    sums = run(objective, batch).sums
    assert (sums.joint[1:] <= sums.joint[:-1]).all()
    assert (sums.joint <= sums.windows).all()


@pytest.mark.parametrize("answers", [0.0, 1.0])
def test_a_batch_of_which_nothing_is_learned_still_reaches_every_parameter(answers: float) -> None:
    batch = drawn_batch([2, 2, 1] if answers else [6, 5], answers=answers)
    objective = objective_of(drawn_draft(EAGLE3))
    outcome = run(objective, batch)
    assert outcome.loss.item() == 0
    assert torch.equal(outcome.sums.stacked(), Sums.zero(STEPS).stacked())
    for gradient in torch.autograd.grad(outcome.loss, list(objective.parameters())):  # raises for one not reached
        assert not gradient.any()


def test_answers_too_short_for_the_later_steps_are_learned_at_the_first() -> None:
    batch = drawn_batch([3])
    batch.loss_mask[:] = True
    sums = run(objective_of(drawn_draft(EAGLE3)), batch).sums
    assert sums.weight.tolist() == [1, 0, 0]


def test_tiles_of_any_size_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    objective, batch = objective_of(drawn_draft(EAGLE3), "soft_ce=1,tv=0.5"), drawn_batch([90, 120])
    whole = run(objective, batch)
    expected = gradients(objective, whole.loss)
    for module in (teachers, tiles):
        monkeypatch.setattr(module, "tile_of", lambda head: 7)
    tiled = run(objective, batch)
    torch.testing.assert_close(tiled.loss, whole.loss)
    torch.testing.assert_close(tiled.sums.stacked(), whole.sums.stacked())
    for name, gradient in gradients(objective, tiled.loss).items():
        torch.testing.assert_close(gradient, expected[name])


def test_a_frozen_head_gets_no_gradient_and_changes_no_other() -> None:
    draft, batch = drawn_draft(EAGLE3, draft_vocab_size=VOCABULARY), drawn_batch([9, 8])
    outcome = run(objective_of(draft), batch)
    assert "lm_head.weight" not in dict(draft.named_parameters())
    for name, gradient in gradients(objective_of(draft), outcome.loss).items():
        assert gradient.any(), name


def test_the_mlp_draft_guesses_from_its_token_alone() -> None:
    draft, batch = drawn_draft(MLP), drawn_batch([9, 8], width=SIZE)
    outcome = run(objective_of(draft, steps=1), batch)
    assert outcome.sums.weight.item() > 0
    assert all(gradient.any() for gradient in gradients(objective_of(draft, steps=1), outcome.loss).values())


def test_noise_depends_on_the_seed_alone_and_shrinks_with_the_text(monkeypatch: pytest.MonkeyPatch) -> None:
    batch, fed = drawn_batch([10, 400], width=SIZE), list[Tensor]()
    objective = objective_of(drawn_draft(EAGLE), "smooth_l1=1.0,soft_ce=0.1", steps=1)
    objective.noise = True

    def watched(draft: Draft, batch: Batch, states: Tensor, *rest: Any, **more: Any) -> Any:
        fed.append(states)
        return unroll(draft, batch, states, *rest, **more)

    monkeypatch.setattr(chains, "unroll", watched)
    first, again, other = (objective(batch, torch.ones(1), measure=False, seed=seed).loss for seed in (1, 1, 2))
    assert first == again != other
    noise = (fed[0] - batch.states).abs()
    # The authors': between -0.1 and 0.1 times 512 over the length of the text.
    for rows, length in ((noise[:10], 10), (noise[10:], 400)):
        assert 0.95 * 51.2 / length < rows.max() <= 51.2 / length
    objective.eval()
    objective(batch, torch.ones(1), measure=False, seed=1)
    assert torch.equal(fed[-1], batch.states)


def test_states_of_another_width_are_not_compared_with_the_verifiers() -> None:
    narrow = Perfect(torch.zeros(VOCABULARY, SIZE - 4), torch.zeros(VOCABULARY, SIZE - 4))
    assert objective_of(narrow, "soft_ce").steps == STEPS
    with pytest.raises(UsageError, match=f"are {SIZE - 4} wide and the verifier's {SIZE}"):
        objective_of(narrow, "soft_ce=1,smooth_l1=0.1")


def test_stages_follow_each_other() -> None:
    objective = objective_of(drawn_draft(EAGLE))
    objective.stages = (Stage(Mix.parse("soft_ce"), until=0.8), Stage(Mix.parse("tv"), rate=0.5))
    assert [objective.at(progress) for progress in (0.0, 0.79, 0.8, 1.0)] == [1.0, 1.0, 0.5, 0.5]
    assert str(objective.mix) == "tv=1.0"
