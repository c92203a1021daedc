"""The first step of the objective on the original authors' inputs: their logits, and the loss that these have."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from spec_convert import convert, load_draft
from spec_convert.models.load import shared_tensors
from spec_convert.training.batches.batch import Batch
from spec_convert.training.losses.mix import Mix
from spec_convert.training.objectives.chains import ChainObjective, Stage
from spec_convert.training.objectives.teacher import Teacher
from spec_convert.training.unrolling.unroll import unroll
from spec_convert.verifier import open_verifier

FIXTURES = Path(__file__).parents[2] / "goldens" / "fixtures"
EAGLE1 = ("eagle1_llama3", "eagle1_qwen2", "eagle1_vicuna", "hass_llama3")
EAGLE3 = ("eagle3_safeai", "eagle3_safeai_own_embed", "eagle3_shared_head", "eagle3_specforge", "eagle3_specforge_31")


@pytest.mark.parametrize("name", [*EAGLE1, *EAGLE3])
def test_loss_and_logits_are_those_of_the_authors(name: str, tmp_path: Path) -> None:
    golden = load_file(FIXTURES / name / "golden.safetensors")
    convert(FIXTURES / name / "checkpoint", tmp_path / name, verifier=FIXTURES / name / "verifier")
    draft, head = load_draft(tmp_path / name), verifier_head(FIXTURES / name / "verifier")
    batch = batch_of(golden, width=head.shape[1])
    rows = torch.arange(len(batch))
    with torch.no_grad():
        (step,) = unroll(draft, batch, batch.states, 1, rows=rows, detach=False)
        kept = draft.kept_tokens()
        stages = [Stage(Mix.parse("smooth_l1=1.0,soft_ce=0.1"))]
        if name in EAGLE3:
            stages = [Stage(Mix.parse("soft_ce"))]
        objective = ChainObjective(
            draft, Teacher(head, kept), stages, steps=1, decay=1, detach=False, noise=False
        )  # fmt: skip
        loss = objective(batch, 1 / objective.weights(batch), measure=True, seed=0).loss
    theirs, states = golden["expected_logits"][0], golden["expected_hidden"][0]
    ours = F.linear(step.for_head, draft.head)[:-1]
    torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-4)
    # Row i embeds token i + 1 and guesses the next one; the last row guesses beyond the text.
    there = slice(0, len(batch) - 2)
    said = F.linear(batch.final[1:], head)
    p = (said if kept is None else said[:, kept]).softmax(-1)
    expected = -(p * theirs.log_softmax(-1)).sum(-1)[there].mean()
    if name in EAGLE1:
        expected = 0.1 * expected + F.smooth_l1_loss(states[there], batch.final[1:][there])
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-4)


def verifier_head(folder: Path) -> torch.Tensor:
    head = shared_tensors(open_verifier(folder), ("lm_head",), torch.float32).lm_head
    assert head is not None
    return head


def batch_of(golden: dict[str, torch.Tensor], *, width: int) -> Batch:
    """All of the text is learned. What the verifier says of it is random: the authors' files do not hold it."""
    text = torch.cat((golden["verifier_input_ids"][0], golden["input_ids"][0, -1:]))
    states = golden["hidden_states"][0]
    random = torch.Generator().manual_seed(0)
    return Batch(
        input_ids=text,
        loss_mask=torch.ones(len(text), dtype=torch.bool),
        states=torch.cat((states, torch.zeros(1, states.shape[1]))),
        final=torch.randn(len(text), width, generator=random),
        bounds=(0, len(text)),
    )
