"""What the verifier says to a few questions, with the states that hypotheses want: one pass over each text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from spec_convert.errors import UsageError
from spec_convert.evaluation.acceptance import Greedy, Proposal, Strategy
from spec_convert.evaluation.chat import Chat
from spec_convert.evaluation.prompt import Prompt
from spec_convert.evaluation.speculation import Stop, speculate
from spec_convert.evaluation.verifier_model import StateId, VerifierModel
from spec_convert.narration import progress

FEWEST = 50  # rows: with fewer, noise hides all but the largest gains


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """One answer. Row i holds token i+1 beside the states of token i, and is to guess token i+2."""

    following: Tensor  # [T] int64: the token of each row
    states: Mapping[StateId, Tensor]  # each [T, Ht]
    first: int  # the row that guesses the second token of the answer: no draft is asked for the first
    logits: Tensor  # [R+1, V], the verifier's: of what rows ``first`` to ``first`` + R guess

    @property
    def rows(self) -> int:
        """R: rows of which this guess and the one after it can be judged."""
        return len(self.logits) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    texts: Sequence[Text]
    device: torch.device

    @property
    def rows(self) -> int:
        return sum(text.rows for text in self.texts)

    def norm(self, before: StateId) -> Tensor:
        """[Ht]: the weight of the RMSNorm between the state ``before`` it and the last one, in least squares.

        Found so whatever the module is called, and whether it multiplies by its weight or by one more than it.
        """
        pairs = ((text.states[before].float(), text.states["final"].float()) for text in self.texts)
        above, below = [torch.cat(states) for states in zip(*pairs, strict=True)]
        normed = above * above.square().mean(dim=-1, keepdim=True).rsqrt()
        return (normed * below).sum(dim=0) / normed.square().sum(dim=0).clamp(min=1e-12)


class Listener:
    """Takes the place of a drafter: it proposes nothing, and keeps what one is shown."""

    def restart(self) -> None:
        self.following: list[int] = []
        self.states: list[Tensor] = []

    def propose(self, following: list[int], states: Tensor, strategy: Strategy) -> Proposal:
        self.following += following
        self.states.append(states)
        return Proposal([], states.new_empty(0, 0))


def hear(
    verifier: VerifierModel, wanted: Sequence[StateId], chat: Chat, prompts: Sequence[Prompt], *, max_tokens: int
) -> Heard:
    """The verifier's greedy answers to the first turn of each prompt. ``wanted``: the states that it was loaded for.

    Raises UsageError when they are too short to tell anything.
    """
    with progress(len(prompts), unit="prompt") as done:
        texts: list[Text] = []
        for prompt in prompts:
            texts += _answer(verifier, wanted, chat, prompt, max_tokens)
            done(1)
    heard = Heard(texts=texts, device=verifier.device)
    if heard.rows < FEWEST:
        raise UsageError(
            f"the answers have {heard.rows} rows to guess at, and fewer than {FEWEST} tell nothing from noise",
            hint="give more prompts, or a larger --max-tokens",
        )
    return heard


def _answer(
    verifier: VerifierModel, wanted: Sequence[StateId], chat: Chat, prompt: Prompt, max_tokens: int
) -> Iterator[Text]:
    """One text, or none when the answer ends at once."""
    system = [] if prompt.system is None else [{"role": "system", "content": prompt.system}]
    asked = chat.ask([*system, {"role": "user", "content": prompt.turns[0]}])
    if verifier.longest is not None and len(asked) + max_tokens > verifier.longest:
        raise UsageError(
            f"a prompt of {len(asked)} tokens and an answer of {max_tokens} exceed the verifier's context of "
            f"{verifier.longest}",
            hint="leave the prompt out, or lower --max-tokens",
        )
    listener = Listener()
    stop = Stop(end_ids=verifier.end_ids | chat.end_ids, max_tokens=max_tokens)
    steps = speculate(verifier, listener, asked, strategy=Greedy(), stop=stop)
    logits = [step.logits for step in steps if step.logits is not None]
    if len(logits) > 1:
        states = torch.cat(listener.states).chunk(len(wanted), dim=-1)
        yield Text(
            following=torch.tensor(listener.following, device=verifier.device),
            states=dict(zip(wanted, states, strict=True)),
            first=len(asked) - 1,
            logits=torch.cat(logits),
        )
