"""A toy EAGLE-1 draft, trained for about a minute: real enough to convert and to measure, too small to be proud of.

    f[i] = draft(x[i+1], h[i])  learns  h[i+1]
    L = SmoothL1(f[i], h[i+1]) + 0.1 * cross-entropy(softmax(W h[i+1]), softmax(W f[i]))

Tokens x, the verifier's states h and its head W, as in the paper (arXiv 2401.15077); only rows inside an answer count.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm

from spec_convert.demo.answers import Answer
from spec_convert.models.eagle import EagleDraft
from spec_convert.narration import say

PEAK_RATE = 2e-3
BATCH = 4
HEAD_ROWS = 32  # rows of a step whose tokens are compared: the head is most of the work, and a sample has the same mean
NOISE = 0.2 * 512  # of the authors' trainer: uniform, this wide over the length of the sequence
LINE_EVERY = 10.0  # seconds between two lines of narration, where there is no progress bar

# tokens [B,R], states [B,R,H], the states to guess [B,R,H], which rows count [B,R]
Batch = tuple[Tensor, Tensor, Tensor, Tensor]


def learn(draft: EagleDraft, answers: Sequence[Answer], *, seconds: float) -> None:
    """Train ``draft`` in place on ``answers`` for ``seconds``, the learning rate falling to nothing meanwhile."""
    trained = [parameter for parameter in draft.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=PEAK_RATE, betas=(0.9, 0.95))
    started, spent, steps = time.monotonic(), 0.0, 0
    with _Progress(seconds) as progress:
        while spent < seconds:
            for batch in _batches(answers):
                optimiser.param_groups[0]["lr"] = PEAK_RATE * max(0.0, 1 - spent / seconds)
                loss = loss_of(draft, batch)
                optimiser.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                nn.utils.clip_grad_value_(trained, 0.5)
                optimiser.step()
                steps, spent = steps + 1, time.monotonic() - started
                progress.show(spent, steps, loss.item())
                if spent >= seconds:
                    break
    say(f"Learned in {steps} steps of {BATCH} answers, loss {progress.loss:.2f}")


class _Progress:
    """A bar on a terminal, elsewhere a line of narration now and then. The loss is smoothed over some ten steps."""

    def __init__(self, seconds: float) -> None:
        self.bar = tqdm(total=round(seconds), unit="s", disable=None)
        self.next_line, self.loss = 0.0, 0.0

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *failure: object) -> None:
        self.bar.close()

    def show(self, spent: float, steps: int, loss: float) -> None:
        self.loss = 0.9 * self.loss + 0.1 * loss if steps > 1 else loss
        self.bar.set_postfix(loss=f"{self.loss:.2f}", refresh=False)
        self.bar.update(int(spent) - self.bar.n)
        if self.bar.disable and spent >= self.next_line:
            say(f"{spent:3.0f} s, step {steps}, loss {self.loss:.2f}")
            self.next_line = spent + LINE_EVERY


def loss_of(draft: EagleDraft, batch: Batch) -> Tensor:
    """The authors' loss. Noise on the states in: at work, the draft is fed its own, which are a little off as well."""
    tokens, states, wanted, counts = batch
    noisy = states + (torch.rand_like(states) - 0.5) * NOISE / tokens.shape[1]
    guessed, wanted = draft.states(tokens, noisy).hidden_states[counts], wanted[counts]
    some = torch.randperm(len(wanted))[:HEAD_ROWS]
    with torch.no_grad():
        likely = F.linear(wanted[some], draft.head).softmax(dim=-1)
    unlike = F.cross_entropy(F.linear(guessed[some], draft.head), likely)
    return F.smooth_l1_loss(guessed, wanted) + 0.1 * unlike


def _batches(answers: Sequence[Answer]) -> Iterator[Batch]:
    """Every answer once, in random order."""
    order = torch.randperm(len(answers)).tolist()
    for first in range(0, len(order), BATCH):
        yield batch_of([answers[index] for index in order[first : first + BATCH]])


def batch_of(answers: Sequence[Answer]) -> Batch:
    """Row i holds x[i+1] and h[i], is to guess h[i+1], and counts when the draft would be asked for it: in the answer.

    Padding on the right is seen by no row before it, so it needs no mask.
    """

    def padded(rows: Iterable[Tensor]) -> Tensor:
        return pad_sequence(list(rows), batch_first=True)

    return (
        padded(answer.token_ids[1:-1] for answer in answers),
        padded(answer.states[:-1] for answer in answers),
        padded(answer.states[1:] for answer in answers),
        padded(torch.arange(1, len(answer.states)) >= answer.start for answer in answers),
    )
