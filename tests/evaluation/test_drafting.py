"""A draft that proposes with a cache proposes what it would if it ran over the whole text each time."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from spec_convert import load_draft
from spec_convert.evaluation import drafting
from spec_convert.evaluation.acceptance import Greedy, Proposal, Sampled
from spec_convert.evaluation.drafting import DraftModel
from spec_convert.models.contract import Draft
from spec_convert.models.dflash import DFlashDraft
from spec_convert.models.peagle import PEagleDraft

from ..tiny import Tiny

WIDTHS = {"dflash": 48, "dspark": 48, "eagle": 16, "eagle3": 48, "mlp": 0, "peagle": 48}
ACCEPTED = (0, 3, 1, 0, 2, 3, 0)  # of three drafted tokens, in one verification after another


@pytest.fixture(params=WIDTHS)
def drafted(request: pytest.FixtureRequest) -> tuple[Draft, int]:
    """A draft of each kind, and the width of the states that it is fed."""
    tiny: Tiny = request.getfixturevalue(request.param)()
    return load_draft(tiny.convert().output), WIDTHS[request.param]


def from_scratch(draft: Draft, ids: list[int], states: Tensor, tokens: int) -> Proposal:
    """Without a cache: all rows again for every token, the fed-back states appended to the verifier's."""
    if isinstance(draft, PEagleDraft):
        return in_one_pass(draft, ids, states, tokens)
    if isinstance(draft, DFlashDraft):
        return of_one_block(draft, ids, states, tokens)
    fused = draft.fuse(states) if hasattr(draft, "fuse") else states
    token_ids, rows = [], []
    for _ in range(tokens):
        given, fed = torch.tensor([ids + token_ids]), fused[None]
        logits, made = draft(given, fed, fed_back=hasattr(draft, "fuse"))  # to layers, fused and fed back look alike
        rows.append(draft.to_target_vocabulary(logits)[0, -1])
        token_ids.append(int(rows[-1].argmax()))
        fused = torch.cat((fused, made[0, -1:, : fused.shape[1]]))
    return Proposal(token_ids, torch.stack(rows))


def of_one_block(draft: DFlashDraft, ids: list[int], states: Tensor, tokens: int) -> Proposal:
    """The block behind the whole text, then guess by guess."""
    draft.expect(tokens)
    token_ids, rows = [], []
    given, made = torch.tensor([ids]), states[None]
    for step in range(tokens):
        logits, made = draft(given, made, fed_back=step > 0)
        rows.append(draft.to_target_vocabulary(logits)[0, -1])
        token_ids.append(int(rows[-1].argmax()))
        given = torch.full_like(given, token_ids[-1])
    return Proposal(token_ids, torch.stack(rows))


def in_one_pass(draft: PEagleDraft, ids: list[int], states: Tensor, tokens: int) -> Proposal:
    """As servers run it: the masked rows behind those that the verifier has read."""
    masks = tokens - 1
    given = torch.tensor([ids + masks * [draft.mask_token_id]])
    fused = draft.fuse(torch.cat((states, draft.mask_hidden[0].expand(masks, -1))))
    logits = F.linear(draft.decode(given, fused[None]).for_head, draft.head)
    rows = draft.to_target_vocabulary(logits)[0, -tokens:]
    return Proposal(rows.argmax(dim=-1).tolist(), rows)


@torch.inference_mode()
def test_proposals_are_those_of_a_draft_without_a_cache(drafted: tuple[Draft, int]) -> None:
    draft, width = drafted
    random = torch.Generator().manual_seed(1)
    model = DraftModel(draft, tokens=3)
    ids = torch.randint(4, 24, (6,), generator=random).tolist()
    states = torch.randn(6, width, generator=random)
    following, new = ids, states
    for accepted in ACCEPTED:
        proposal = model.propose(following, new, Greedy())
        expected = from_scratch(draft, ids, states, 3)
        assert proposal.token_ids == expected.token_ids
        # Another order of additions: by how much they differ depends on the processor.
        torch.testing.assert_close(proposal.logits, expected.logits, rtol=1e-5, atol=1e-4)
        following = [*proposal.token_ids[:accepted], int(torch.randint(4, 24, (1,), generator=random))]
        new = torch.randn(accepted + 1, width, generator=random)
        ids, states = ids + following, torch.cat((states, new))


@torch.inference_mode()
def test_a_long_prompt_is_read_in_pieces_with_the_same_result(
    drafted: tuple[Draft, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    draft, width = drafted
    random = torch.Generator().manual_seed(2)
    ids, states = torch.randint(4, 24, (11,), generator=random).tolist(), torch.randn(11, width, generator=random)
    at_once = DraftModel(draft, tokens=3).propose(ids, states, Greedy())
    monkeypatch.setattr(drafting, "ROWS", 4)
    in_pieces = DraftModel(draft, tokens=3).propose(ids, states, Greedy())
    assert in_pieces.token_ids == at_once.token_ids
    torch.testing.assert_close(in_pieces.logits, at_once.logits)


def test_a_new_text_begins_from_nothing(drafted: tuple[Draft, int]) -> None:
    draft, width = drafted
    model = DraftModel(draft, tokens=2)
    first = model.propose([5, 6, 7], torch.ones(3, width), Greedy())
    model.propose([8], torch.ones(1, width), Greedy())
    model.restart()
    again = model.propose([5, 6, 7], torch.ones(3, width), Greedy())
    assert torch.equal(again.logits, first.logits)


def test_a_reduced_vocabulary_is_proposed_in_the_verifiers_ids(eagle3: Callable[..., Tiny]) -> None:
    draft = load_draft(eagle3().convert().output)
    proposal = DraftModel(draft, tokens=3).propose([5, 6], torch.randn(2, 48), Greedy())
    assert proposal.logits.shape == (3, 32)
    said = proposal.logits.isfinite()
    assert said[:, 4:24].all()
    assert said.sum() == 3 * 20


def test_sampled_proposals_come_from_the_drafts_distribution(eagle: Callable[..., Tiny]) -> None:
    model = DraftModel(load_draft(eagle().convert().output), tokens=1)
    strategy, runs = Sampled(1.5, torch.Generator().manual_seed(0)), 400
    counts = torch.zeros(32)
    for _ in range(runs):
        model.restart()
        proposal = model.propose([5], torch.ones(1, 16), strategy)
        counts[proposal.token_ids[0]] += 1
    expected = (proposal.logits[0] / 1.5).softmax(-1)
    assert float((counts / runs - expected).abs().sum()) / 2 < 0.1  # total variation
