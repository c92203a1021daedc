"""One run of `regenerate`: what is left to ask goes through an engine into the journal, and from there into OUTPUT."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

from spec_convert.errors import UsageError
from spec_convert.narration import EVERY, length, say
from spec_convert.training.conversations.conversation import REASONING
from spec_convert.training.regeneration.answerer import Answerer
from spec_convert.training.regeneration.conversing import Asked, Outcome, Sampling, row
from spec_convert.training.regeneration.journal import Entry, Journal, open_journal
from spec_convert.training.regeneration.questions import ENOUGH, Problem, Questions
from spec_convert.training.same_request import require_same
from spec_convert.training.store.manifest import replace_text

SUFFIX = ".jsonl"
REFUSED = "refused"  # by the server, or by the chat template


@dataclass(frozen=True, kw_only=True)
class Regenerated:
    """What OUTPUT holds: ``answers`` of ``tokens`` together in ``conversations``.

    ``cut``: answers that did not end by themselves. ``with_reasoning``: answers that came with reasoning beside them.
    ``shortened``: conversations whose last turns were refused. ``new_tokens`` took ``seconds`` in this run, the start
    of an engine not counted.
    """

    output: str
    model: str
    conversations: int
    answers: int
    tokens: int
    cut: int
    with_reasoning: int
    shortened: int
    left_out: tuple[Problem, ...]
    new_tokens: int
    seconds: float

    @property
    def left_out_by_reason(self) -> dict[str, int]:
        return dict(Counter(problem.reason for problem in self.left_out))

    @property
    def tokens_per_second(self) -> float | None:
        """None when everything was there already."""
        return self.new_tokens / self.seconds if self.new_tokens else None

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {
            "left_out_by_reason": self.left_out_by_reason,
            "tokens_per_second": self.tokens_per_second,
        }


def regenerate(questions: Questions, output: Path, answerer: Answerer, sampling: Sampling) -> Regenerated:
    """Write what is answered to ``questions`` to ``output``, or what is missing of it.

    The engine of ``answerer``, made with ``sampling``, is opened only when something is left. Beside ``output`` stays
    a file that says what was asked and what came of it, `….report.json`. Raises UsageError.
    """
    report, partial = report_of(output), output.with_name(f"{output.name}.partial")
    request = {**questions.to_json(), **answerer.model, **sampling.to_json()}
    if output.exists():
        made = _finished(output, report, request)
        partial.unlink(missing_ok=True)  # of a run that was killed at its very end
        return made
    with open_journal(partial, request) as journal:
        run = _run(questions.asked, journal, answerer)
        made = _write(questions, journal, output, answerer.model["model"], run)
        replace_text(report, json.dumps({"request": request, "result": made.to_json()}, indent=2) + "\n")
        output.with_name(f".{output.name}.new").rename(output)
        partial.unlink()
    return made


def report_of(output: Path) -> Path:
    """Raises UsageError for an output that `prepare` would not know how to read, or that has no folder."""
    if output.suffix != SUFFIX:
        raise UsageError(f"the output {output} is not called {SUFFIX}", hint=f"such as {output.with_suffix(SUFFIX)}")
    if not output.absolute().parent.is_dir():
        raise UsageError(f"there is no folder {output.absolute().parent}", hint="make it, or give another OUTPUT")
    return output.with_suffix(".report.json")


def _finished(output: Path, report: Path, request: dict[str, Any]) -> Regenerated:
    try:
        told = json.loads(report.read_text(encoding="utf-8"))
        there, result = told["request"], told["result"]
        left_out = tuple(Problem(**problem) for problem in result["left_out"])
        changed = {"output": str(output), "left_out": left_out, "new_tokens": 0, "seconds": 0.0}
        made = Regenerated(**{field.name: (result | changed)[field.name] for field in fields(Regenerated)})
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(
            f"{output} is there already, without the {report.name} of a run that made it",
            hint="give another OUTPUT, or remove it",
        ) from error
    require_same(output, "answers", there, request)
    say(f"{output} is finished: nothing is left to do")
    return made


class _Run(NamedTuple):
    """The tokens that were made, and the seconds that they took."""

    tokens: int
    seconds: float


def _run(asked: Sequence[Asked], journal: Journal, answerer: Answerer) -> _Run:
    done = journal.done
    if not (left := len(asked) - len(done)):
        return _Run(0, 0.0)
    if done:
        say(f"{len(done):,} of {len(asked):,} conversations are there already")
    by_place = {one.place: one for one in asked}
    refused: list[Entry] = []  # kept back until something is answered
    with answerer.open() as engine, closing(engine.outcomes(asked, done)) as outcomes:
        pace = _Pace(left)
        for outcome in outcomes:
            entry = _entry(by_place[outcome.place], outcome)
            pace.advance(entry["tokens"])
            if not outcome.answers and not len(journal):
                refused.append(entry)
                _refuse_to_go_on(by_place[outcome.place], refused, of=len(asked))
                continue
            for one in (entry, *refused):
                journal.add(one)
            refused.clear()
    return _Run(pace.tokens, pace.seconds)


def _entry(asked: Asked, outcome: Outcome) -> Entry:
    """A line of the journal: the row of the output, or why there is none."""
    tokens = sum(answer.tokens for answer in outcome.answers)
    what = {"row": row(asked, outcome)} if outcome.answers else {"refused": outcome.refused}
    return {"place": outcome.place, "tokens": tokens, **what}


def _refuse_to_go_on(first: Asked, refused: Sequence[Entry], *, of: int) -> None:
    """What refuses everything at the beginning would refuse the rest as well."""
    if len(refused) == min(ENOUGH, of):
        raise UsageError(
            f"none of the first {len(refused)} conversations is answered; of {first.where}: {refused[-1]['refused']}",
            hint="if answers are too long for the model, ask for shorter ones: --max-tokens",
        )


class _Pace:
    """Says now and then how far it is, and how fast."""

    def __init__(self, total: int) -> None:
        self._total, self._done = total, 0
        self.tokens = 0
        self._started = self._told = self._came = time.monotonic()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._started

    def advance(self, tokens: int) -> None:
        """Of one more conversation. What is said leaves it out: it may be the first of a whole batch."""
        now = time.monotonic()
        if self._done and now - self._told >= EVERY:
            each = (self._came - self._started) / self._done
            if now - self._came > each / 2:  # or it belongs to the batch of the one before, which is not counted yet
                self._told = now
                speed = f"{self.tokens / each / self._done:,.0f} tokens/s"
                left = length((self._total - self._done) * each)
                say(f"{self._done:,} of {self._total:,} conversations, {speed}, about {left} to go")
        self._done, self.tokens, self._came = self._done + 1, self.tokens + tokens, now


def _write(questions: Questions, journal: Journal, output: Path, model: str, run: _Run) -> Regenerated:
    """The rows in the order of the sources, under a name that is not the final one yet."""
    where = {one.place: one.where for one in questions.asked}
    refused: list[Problem] = []
    conversations = answers = tokens = cut = with_reasoning = shortened = 0
    with output.with_name(f".{output.name}.new").open("w", encoding="utf-8") as file:
        for entry in journal:
            if (made := entry.get("row")) is None:
                refused.append(Problem(where[entry["place"]], REFUSED, entry["refused"]))
                continue
            file.write(json.dumps(made, ensure_ascii=False) + "\n")
            conversations, tokens = conversations + 1, tokens + entry["tokens"]
            answers += len(made["finish_reasons"])
            cut += sum(reason != "stop" for reason in made["finish_reasons"])
            with_reasoning += sum(REASONING in message for message in made["conversations"])
            shortened += "unanswered" in made
        file.flush()
        os.fsync(file.fileno())
    return Regenerated(
        output=str(output), model=model, conversations=conversations, answers=answers, tokens=tokens, cut=cut,
        with_reasoning=with_reasoning, shortened=shortened, left_out=(*questions.malformed, *refused),
        new_tokens=run.tokens, seconds=round(run.seconds, 3),
    )  # fmt: skip
