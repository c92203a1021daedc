"""The objective of P-EAGLE against one pass over all elements with the paper's mask, and what must not change it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spec_convert.errors import UsageError
from spec_convert.models.contract import Draft, DraftStates, VerifierTensors
from spec_convert.models.draft import build_draft
from spec_convert.models.peagle import PEagleDraft
from spec_convert.training.batches.batch import Batch
from spec_convert.training.batches.loading import padded
from spec_convert.training.losses.mix import Mix
from spec_convert.training.objectives.chains import ChainObjective, Stage
from spec_convert.training.objectives.objective import Outcome
from spec_convert.training.objectives.parallel import ParallelObjective
from spec_convert.training.objectives.parallel_sampling import drawn_chains, planned_counts
from spec_convert.training.objectives.teacher import Teacher
from spec_convert.unified import UNIFIED

from ..drawing import (
    DRAFT_VOCABULARY,
    EAGLE3,
    ENVELOPE,
    SIZE,
    STATES,
    VOCABULARY,
    document,
    drawn_batch,
    drawn_draft,
    drawn_verifier,
)

DEPTHS, LAYERS, MASK = 4, 2, 5
PEAGLE = EAGLE3 | {"speculators_model_type": "peagle", "mask_token_id": MASK, "embed_requires_grad": True}


def drawn_parallel_draft(**layer: Any) -> PEagleDraft:
    """In float64, with an embedding of its own."""
    plain = drawn_draft(EAGLE3, layer={"num_hidden_layers": LAYERS} | layer)
    whole = ENVELOPE | PEAGLE
    whole |= {"transformer_layer_config": whole["transformer_layer_config"] | {"num_hidden_layers": LAYERS} | layer}
    random = torch.Generator().manual_seed(9)
    own = {
        "mask_hidden": torch.randn(1, 1, STATES * SIZE, dtype=torch.float64, generator=random),
        "embed_tokens.weight": torch.randn(VOCABULARY, SIZE, dtype=torch.float64, generator=random),
    }
    nothing = VerifierTensors(embed_tokens=None, lm_head=None)
    draft = build_draft(UNIFIED.validate_python(whole), plain.state_dict() | own, nothing)
    assert isinstance(draft, PEagleDraft)
    return draft


def objective_of(draft: Draft, mix: str = "soft_ce", *, depths: int = DEPTHS, **sampling: float) -> ParallelObjective:
    stages = [Stage(Mix.parse(mix))]
    return ParallelObjective(draft, teacher_of(draft), stages, depths=depths, **sampling)  # type: ignore[arg-type]


def teacher_of(draft: Draft) -> Teacher:
    head = drawn_verifier().lm_head
    assert head is not None
    return Teacher(head, draft.target_ids() if getattr(draft, "reduced", False) else None)


def run(objective: ChainObjective, batch: Batch, *, seed: int = 0) -> Outcome:
    weights = objective.weights(batch)
    share = torch.where(weights > 0, objective.decay / weights, 0.0)
    return objective(batch, share, measure=True, seed=seed)


def gradients(draft: Draft, loss: Tensor) -> dict[str, Tensor]:
    named = dict(draft.named_parameters())
    return dict(zip(named, torch.autograd.grad(loss, list(named.values()), materialize_grads=True), strict=True))


def elements(batch: Batch, taken: Tensor) -> tuple[Tensor, Tensor]:
    """Depth and anchor of every element: all rows at depth 0, the drawn ones at each depth after it."""
    whole = taken.clone()
    whole[0] = True
    depth, anchor = whole.nonzero().T
    return depth, anchor


def allowed(batch: Batch, depth: Tensor, anchor: Tensor) -> Tensor:
    """[E, E] bool, as the paper draws it."""
    same_text = batch.documents[anchor][:, None] == batch.documents[anchor]
    context = (depth == 0) & (anchor[:, None] >= anchor)
    own_chain = (anchor[:, None] == anchor) & (depth[:, None] >= depth)
    return same_text & (context | own_chain)


def in_one_pass(draft: PEagleDraft, batch: Batch, taken: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Logits [E, Vd], depths and anchors."""
    depth, anchor = elements(batch, taken)
    mask = allowed(batch, depth, anchor)

    def attend(layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, enable_gqa=True)

    first = depth == 0
    tokens = torch.where(first, batch.input_ids.roll(-1)[anchor], MASK)
    states = torch.where(first[:, None], batch.states[anchor], draft.mask_hidden[0])
    positions = batch.positions[anchor] + depth
    made = draft(tokens[None], states[None], positions[None], fed_back=False, attend=attend)
    return made.logits[0], depth, anchor


def written_out(objective: ParallelObjective, batch: Batch, taken: Tensor) -> Tensor:
    """The mean of each depth, each counting by its share of all that is planned; the mask is read token by token."""
    logits, depths, anchors = in_one_pass(objective.draft, batch, taken)
    kept, total = objective.draft.target_ids(), torch.zeros((), dtype=torch.float64)
    planned = planned_counts(batch, objective.shares).tolist()
    for row, depth, anchor in zip(logits, depths.tolist(), anchors.tolist(), strict=True):
        window = slice(anchor + 1, anchor + depth + 3)
        inside = len(batch.documents[window]) == depth + 2 and batch.documents[window].eq(batch.documents[anchor]).all()
        if inside and batch.loss_mask[window].all():
            p = (objective.teacher.head[kept] @ batch.final[anchor + depth + 1]).softmax(0)
            portion = objective.shares[depth] / sum(objective.shares)
            total = total - portion * (p * row.log_softmax(0)).sum() / planned[depth]
    return total


@pytest.mark.parametrize("ratio", [0.7, 1.0])
def test_loss_and_gradients_are_those_of_one_pass_over_all_elements(ratio: float) -> None:
    draft, batch = drawn_parallel_draft(), drawn_batch([14, 3, 11], answers=0.95)
    objective = objective_of(draft, ratio=ratio)
    outcome = run(objective, batch, seed=4)
    taken = drawn_chains(batch, objective.shares, seed=4)
    assert taken.any(dim=1).all()
    expected = written_out(objective, batch, taken)
    torch.testing.assert_close(outcome.loss, expected, rtol=1e-10, atol=1e-12)
    there, wanted = gradients(draft, outcome.loss), gradients(draft, expected)
    for name in wanted:
        torch.testing.assert_close(there[name], wanted[name], rtol=1e-8, atol=1e-11, msg=name)


def test_what_an_element_sees_counted_by_hand() -> None:
    """Depth d of the chain at row i of its text: the i + 1 rows up to its own, and d masked ones up to itself."""
    batch = drawn_batch([5, 4])
    taken = torch.zeros(3, 9, dtype=torch.bool)
    taken[1, [0, 2, 5]] = taken[2, [2]] = True
    depth, anchor = elements(batch, taken)
    assert list(zip(depth.tolist(), anchor.tolist(), strict=True))[9:] == [(1, 0), (1, 2), (1, 5), (2, 2)]
    seen = allowed(batch, depth, anchor).sum(dim=1).tolist()
    assert seen == [1, 2, 3, 4, 5, 1, 2, 3, 4, 2, 4, 2, 5]


def test_one_depth_is_plain_eagle3() -> None:
    draft, batch = drawn_parallel_draft(), drawn_batch([9, 12])
    tensors = {name: tensor for name, tensor in draft.state_dict().items() if name != "mask_hidden"}
    whole = ENVELOPE | EAGLE3
    layers = {"transformer_layer_config": whole["transformer_layer_config"] | {"num_hidden_layers": LAYERS}}
    plain = build_draft(UNIFIED.validate_python(whole | layers), tensors)
    stages, teacher = [Stage(Mix.parse("soft_ce"))], teacher_of(plain)
    chains = ChainObjective(plain, teacher, stages, steps=1, decay=1, detach=False, noise=False)
    one, other = run(objective_of(draft, depths=1), batch), run(chains, batch)
    torch.testing.assert_close(one.loss, other.loss, rtol=1e-12, atol=0)
    torch.testing.assert_close(one.sums.stacked(), other.sums.stacked())


def test_packed_is_the_same_as_one_by_one_and_padding_adds_nothing() -> None:
    objective, batch = objective_of(drawn_parallel_draft()), drawn_batch([19, 4, 22], answers=0.95)

    def sums(one: Batch) -> Tensor:
        return objective(one, torch.ones(DEPTHS), measure=True, seed=0).sums.stacked()

    together = sums(batch)
    torch.testing.assert_close(sum(sums(document(batch, number)) for number in range(3)), together)
    torch.testing.assert_close(sums(padded(batch, 64)), together)


def test_the_weights_are_those_that_are_planned() -> None:
    objective, batch = objective_of(drawn_parallel_draft()), drawn_batch([40])
    batch.loss_mask[:] = torch.arange(40) > 5
    assert objective.weights(batch).tolist() == [33, int(32 * 0.7), int(31 * 0.49), int(30 * 0.343)]
    sums = run(objective, batch).sums
    assert torch.equal(sums.weight, objective.weights(batch))
    assert torch.equal(sums.weight, sums.rows)
    assert torch.equal(sums.weight, sums.windows)


def test_depths_count_by_how_many_elements_they_have() -> None:
    assert objective_of(drawn_parallel_draft(), ratio=0.5, least=0.25).decay.tolist() == [0.5, 0.25, 0.125, 0.125]
    assert objective_of(drawn_parallel_draft(), ratio=1.0, decay=0.5).decay.tolist() == [0.25, 0.125, 0.0625, 0.03125]


class Perfect(PEagleDraft):
    """Knows what the verifier's head will read at each position."""

    def __init__(self, table: Tensor, head: Tensor) -> None:
        nn.Module.__init__(self)
        self.table, self.mask_hidden = nn.Parameter(table), nn.Parameter(torch.zeros(1, dtype=torch.float64))
        self.lm_head = nn.Module()
        self.lm_head.weight = head

    def states(self, input_ids: Tensor, hidden_states: Tensor, position_ids: Any = None, **more: Any) -> DraftStates:
        return self.masked(position_ids)

    def masked(self, position_ids: Tensor, **more: Any) -> DraftStates:
        return DraftStates(self.table[position_ids + 1], self.table[position_ids + 1])


def test_a_perfect_draft_is_right_at_every_depth() -> None:
    verifier, batch = drawn_verifier(), drawn_batch([20, 12], answers=0.95)
    assert verifier.embed_tokens is not None
    assert verifier.lm_head is not None
    batch.final[:] = verifier.embed_tokens[batch.positions]
    sums = run(objective_of(Perfect(verifier.embed_tokens, verifier.lm_head)), batch).sums
    assert (sums.windows > 0).all()
    assert torch.equal(sums.hits, sums.rows)
    assert torch.equal(sums.joint, sums.windows)
    torch.testing.assert_close(sums.alpha, sums.windows)


def test_gradients_reach_the_mask_and_the_embedding() -> None:
    draft = drawn_parallel_draft(model_type="qwen3")
    loss = run(objective_of(draft), drawn_batch([20], answers=1.0)).loss
    reached = gradients(draft, loss)
    assert {name for name, gradient in reached.items() if not gradient.any()} == set()
    assert reached["embed_tokens.weight"][MASK].any()


@pytest.mark.parametrize(("lengths", "answers"), [([6, 5], 0.0), ([2, 2, 1], 1.0), ([3], 1.0)])
def test_texts_too_short_to_go_deeper_still_reach_every_parameter(lengths: list[int], answers: float) -> None:
    draft, batch = drawn_parallel_draft(), drawn_batch(lengths, answers=answers)
    loss = run(objective_of(draft), batch).loss
    given = torch.autograd.grad(loss, list(draft.parameters()))  # raises for one that is not reached
    assert all(gradient.isfinite().all() for gradient in given)


def test_a_loss_on_states_is_refused() -> None:
    with pytest.raises(UsageError, match="hands no state on"):
        objective_of(drawn_parallel_draft(), "soft_ce=1,smooth_l1=0.1")


def test_the_sizes_of_these_tests_tell_the_vocabularies_apart() -> None:
    assert drawn_parallel_draft().head.shape == (DRAFT_VOCABULARY, SIZE)
