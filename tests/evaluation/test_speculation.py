"""The loop: its text is the verifier's own, greedy or sampled, whatever the draft proposes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from spec_convert import load_draft
from spec_convert.evaluation.acceptance import Greedy, Sampled, overlap, probabilities
from spec_convert.evaluation.counting import Tally
from spec_convert.evaluation.drafting import Drafter, DraftModel, NoDrafter
from spec_convert.evaluation.speculation import Step, Stop, speculate
from spec_convert.evaluation.verifier_model import VerifierModel, load_verifier
from spec_convert.models.load import unified_config
from spec_convert.open import open_checkpoint

from .drafters import Forced, Scripted, Table

Reader = Callable[..., VerifierModel]
VOCABULARY = 32
PROMPT = [3, 14, 15, 9, 26, 5]
FOREVER = frozenset[int]()
LONG = Stop(end_ids=FOREVER, max_tokens=40)


def own_text(verifier: VerifierModel, tokens: int, **settings: object) -> list[int]:
    """What transformers' own generation makes of the prompt."""
    ids = torch.tensor([PROMPT])
    made = verifier.model.generate(
        ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=tokens, pad_token_id=0, **settings
    )
    return made[0, len(PROMPT) :].tolist()


def run(verifier: VerifierModel, drafter: Drafter, stop: Stop = LONG) -> tuple[list[int], list[Step]]:
    steps = list(speculate(verifier, drafter, PROMPT, strategy=Greedy(), stop=stop))
    return [token for step in steps for token in step.token_ids], steps


def accepted(steps: Sequence[Step]) -> list[int]:
    return [step.accepted for step in steps if step.proposal]


@pytest.mark.parametrize("kind", ["eagle", "eagle3", "mlp"])
@pytest.mark.parametrize("tokens", [1, 4])
def test_greedy_text_is_what_transformers_generates(
    request: pytest.FixtureRequest, verifier: Path, kind: str, tokens: int
) -> None:
    output = request.getfixturevalue(kind)().convert().output
    config = unified_config(open_checkpoint(output))
    model = load_verifier(str(verifier), config, revision=None, dtype="float32", device="cpu")
    text, steps = run(model, DraftModel(load_draft(output), tokens=tokens))
    assert len(set(text)) > 5
    assert text == own_text(model, 40)
    assert all(len(step.proposal.token_ids) == tokens for step in steps[1:])


def test_the_verifier_alone_says_the_same_token_by_token(reader: Reader) -> None:
    model = reader()
    text, steps = run(model, NoDrafter())
    assert text == own_text(model, 40)
    assert len(steps) == 40


@pytest.mark.parametrize("tokens", [1, 3, 5])
def test_of_a_perfect_draft_every_token_is_accepted(reader: Reader, tokens: int) -> None:
    model = reader()
    own = own_text(model, 40)
    text, steps = run(model, Scripted([*PROMPT, *own_text(model, 50)], VOCABULARY, [0] * tokens))
    assert text == own
    assert set(accepted(steps)) == {tokens}
    assert len(steps) == 1 + -(-39 // (tokens + 1))


def test_of_a_draft_that_is_always_wrong_nothing_is_accepted(reader: Reader) -> None:
    model = reader()
    own = own_text(model, 40)
    text, steps = run(model, Scripted([*PROMPT, *own], VOCABULARY, [1, 0, 0]))
    assert text == own
    assert accepted(steps) == [0] * 39


def test_right_tokens_after_a_wrong_one_are_not_accepted(reader: Reader) -> None:
    model = reader()
    own = own_text(model, 60)
    text, steps = run(model, Scripted([*PROMPT, *own], VOCABULARY, [0, 0, 1, 0]))
    assert text == own[:40]
    assert set(accepted(steps)) == {2}


def test_every_verification_sees_the_logits_of_the_text_without_a_cache(reader: Reader) -> None:
    model, strategy = reader(["final"]), Forced([0, 3, 1, 0, 0, 2, 3, 0])
    drafter = Scripted(range(100), VOCABULARY, [0, 0, 0])
    text, passes = list(PROMPT), 0
    for step in speculate(model, drafter, PROMPT, strategy=strategy, stop=Stop(end_ids=FOREVER, max_tokens=18)):
        if step.proposal:
            whole = [*text, *step.proposal.token_ids]
            with torch.inference_mode():
                expected = model.model(torch.tensor([whole]), use_cache=False).logits[0, -4:]
            torch.testing.assert_close(strategy.seen[-1], expected)
            passes += 1
        text += step.token_ids
    assert passes == 8


def test_the_draft_is_fed_the_verifiers_states_of_what_was_accepted(reader: Reader) -> None:
    class Listening(Scripted):
        def __init__(self) -> None:
            self.heard: list[Tensor] = []
            self.ids = PROMPT[:1]
            super().__init__(range(100), VOCABULARY, [0, 0, 0])

        def propose(self, following, states, strategy):
            self.heard.append(states)
            self.ids = self.ids + following
            return super().propose(following, states, strategy)

    model, drafter = reader([1, 2]), Listening()
    steps = speculate(
        model, drafter, PROMPT, strategy=Forced([0, 3, 1, 2, 0, 0]), stop=Stop(end_ids=FOREVER, max_tokens=13)
    )
    text = PROMPT + [token for step in steps for token in step.token_ids]
    heard = torch.cat(drafter.heard)
    assert drafter.ids == text[: len(heard) + 1]
    model.restart()
    torch.testing.assert_close(heard, model.read(text, keep=1).states[: len(heard)])


class TestWhereAnAnswerEnds:
    def test_at_the_end_token_even_in_the_middle_of_a_draft(self, reader: Reader) -> None:
        model = reader()
        own = own_text(model, 40)
        end = next(token for token in own if own.index(token) > 6)
        text, steps = run(
            model, Scripted([*PROMPT, *own], VOCABULARY, [0] * 5), Stop(end_ids=frozenset([end]), max_tokens=40)
        )
        assert text == own_text(model, 40, eos_token_id=end)
        assert text[-1] == end
        assert accepted(steps)[-1] == 5  # as vLLM counts: also those after the end

    def test_at_any_of_several_end_tokens(self, reader: Reader) -> None:
        model = reader()
        own = own_text(model, 40)
        text, _ = run(model, NoDrafter(), Stop(end_ids=frozenset([own[9], own[4]]), max_tokens=40))
        assert text == own[: min(own.index(own[4]), own.index(own[9])) + 1]

    def test_at_once_when_the_first_token_ends_it(self, reader: Reader) -> None:
        model = reader()
        own = own_text(model, 1)
        text, steps = run(model, Scripted(PROMPT, VOCABULARY, [0]), Stop(end_ids=frozenset(own), max_tokens=40))
        assert text == own
        assert accepted(steps) == []

    @pytest.mark.parametrize("longest", [1, 2, 4, 5, 6])
    def test_at_its_greatest_length_in_the_middle_of_a_draft(self, reader: Reader, longest: int) -> None:
        model = reader()
        own = own_text(model, 40)
        text, steps = run(
            model, Scripted([*PROMPT, *own], VOCABULARY, [0] * 3), Stop(end_ids=FOREVER, max_tokens=longest)
        )
        assert text == own[:longest]
        assert accepted(steps) == [3] * -(-(longest - 1) // 4)


class TestSampling:
    """A verifier and a draft whose next token depends on the last one: all probabilities can be written down."""

    SIZE, TEMPERATURE, RUNS = 4, 0.9, 3000

    @pytest.fixture
    def tables(self) -> tuple[Tensor, Tensor]:
        random = torch.Generator().manual_seed(11)
        verifier, draft = (torch.randn(self.SIZE, self.SIZE, generator=random) for _ in range(2))
        draft[:, 3] = float("-inf")  # a token that the draft cannot say
        return verifier, draft

    def runs(self, tables: tuple[Tensor, Tensor], tokens: int, length: int) -> list[list[Step]]:
        verifier, draft = tables
        strategy = Sampled(self.TEMPERATURE, torch.Generator().manual_seed(0))
        stop = Stop(end_ids=FOREVER, max_tokens=length)
        drafter = Table(draft, tokens)
        return [list(speculate(Table(verifier), drafter, [0], strategy=strategy, stop=stop)) for _ in range(self.RUNS)]

    @pytest.mark.parametrize("tokens", [1, 2])
    def test_texts_come_as_often_as_the_verifier_alone_says_them(
        self, tables: tuple[Tensor, Tensor], tokens: int
    ) -> None:
        """All 64 texts of three tokens. Chi-square with 63 degrees of freedom: above 104 in one of a thousand seeds."""
        counts = torch.zeros(self.SIZE, self.SIZE, self.SIZE)
        for steps in self.runs(tables, tokens=tokens, length=3):
            counts[tuple(token for step in steps for token in step.token_ids)] += 1
        p = probabilities(tables[0], self.TEMPERATURE)
        expected = self.RUNS * p[0][:, None, None] * p[:, :, None] * p[None, :, :]
        assert float(((counts - expected) ** 2 / expected).sum()) < 104

    def test_alpha_is_the_rate_at_which_tokens_are_accepted(self, tables: tuple[Tensor, Tensor]) -> None:
        tally = Tally(2, temperature=self.TEMPERATURE)
        for steps in self.runs(tables, tokens=2, length=2):  # one draft each
            for step in steps:
                tally.see(step)
        assert tally.drafts == self.RUNS
        first, second = tally.alpha
        rates = tally.accepted[0] / tally.drafts, tally.accepted[1] / tally.accepted[0]
        assert rates == (pytest.approx(first, abs=0.03), pytest.approx(second, abs=0.04))
        p = probabilities(tables[0], self.TEMPERATURE)[0]  # of the first token, which the verifier says alone
        by_token = overlap(*tables, self.TEMPERATURE)
        assert first == pytest.approx(float((p * by_token).sum()), abs=0.02)
