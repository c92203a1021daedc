"""What became of the rows of a data set: how many are kept, and why the others are not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from spec_convert.errors import UsageError
from spec_convert.training.preparation.tokenising import (
    ALL_ZERO,
    CUT_BEFORE_ANSWER,
    CUT_REASONING,
    LEFT_OUT,
    MALFORMED,
    NO_ANSWER,
    UNSAID_REASONING,
)
from spec_convert.training.store.manifest import Counts

HINTS = {
    f"{LEFT_OUT}.{NO_ANSWER}": "`spec-convert regenerate SOURCE… ANSWERED.jsonl` lets the verifier write the answers",
    f"{LEFT_OUT}.{CUT_BEFORE_ANSWER}": "give a larger --seq-length",
    f"{LEFT_OUT}.{ALL_ZERO}": "its {% generation %} tags enclose nothing: give a --verifier with another chat template",
    f"{LEFT_OUT}.{CUT_REASONING}": "let `spec-convert regenerate` write longer answers: --max-tokens",
    f"{LEFT_OUT}.{UNSAID_REASONING}": "serve without a reasoning parser, and regenerate: it stays in the text then",
}
COLUMNS = (
    "row", "where", "outcome", "words", "hint", "tokens", "learned", "truncated", "began_with_answer", "cut",
    "rewritten",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Example:
    """The first row, in the order of the sources, of which something is said. ``hint``: what to do about it."""

    where: str
    words: str
    hint: str


@dataclass(frozen=True, slots=True)
class Accounts:
    """``counts`` by name: `rows`, `samples`, `tokens`, `answer_tokens`, `truncated`, `began_with_answer`,
    `cut_answers`, `rewritten_answers`, and each reason why rows are left out, as `malformed.REASON` or
    `left_out.REASON`, of which ``examples`` has the first.

    ``kept``: places of the samples among the outcomes; ``lengths``: the tokens of each.
    """

    counts: Counts
    examples: Mapping[str, Example]
    kept: Sequence[int]
    lengths: Sequence[int]

    def to_json(self) -> dict[str, Any]:
        """The counts, those of rows that are left out under `malformed` and `left_out` by reason with the first one."""
        by_kind: dict[str, dict[str, Any]] = {MALFORMED: {}, LEFT_OUT: {}}
        for reason, example in self.examples.items():
            kind, _, name = reason.partition(".")
            by_kind[kind][name] = {"rows": self.counts[reason], "first": example.where, "words": example.words}
        counts = {name: number for name, number in self.counts.items() if name not in self.examples}
        share = counts["answer_tokens"] / counts["tokens"]
        return {**counts, "answer_share": round(share, 6), **by_kind}


def account(outcomes: Mapping[str, Sequence[Any]], max_samples: int | None) -> Accounts:
    """Count the columns COLUMNS of `tokenised`, up to the row with which ``max_samples`` samples are reached."""
    reasons = outcomes["outcome"]
    kept = [place for place, reason in enumerate(reasons) if not reason][:max_samples]
    rows = len(reasons) if len(kept) != max_samples else kept[-1] + 1
    counts = {
        "rows": rows,
        "samples": len(kept),
        "tokens": sum(outcomes["tokens"][place] for place in kept),
        "answer_tokens": sum(outcomes["learned"][place] for place in kept),
        "truncated": sum(outcomes["truncated"][place] for place in kept),
        "began_with_answer": sum(outcomes["began_with_answer"][place] for place in kept),
        "cut_answers": sum(outcomes["cut"][place] for place in kept),
        "rewritten_answers": sum(outcomes["rewritten"][place] for place in kept),
    }
    left_out = [place for place in range(rows) if reasons[place]]
    by_reason = Counter(reasons[place] for place in left_out)
    examples: dict[str, Example] = {}
    for place in sorted(left_out, key=lambda place: int(outcomes["row"][place])):
        hint = HINTS.get(reasons[place]) or outcomes["hint"][place]
        examples.setdefault(reasons[place], Example(outcomes["where"][place], outcomes["words"][place], hint))
    lengths = [outcomes["tokens"][place] for place in kept]
    return Accounts(counts | dict(sorted(by_reason.items())), examples, kept, lengths)


def require_usable(accounts: Accounts) -> None:
    """Raises UsageError when most rows are malformed, or when nothing is left of them: one cause, one place."""
    counts, rows = accounts.counts, accounts.counts["rows"]
    malformed = {reason: counts[reason] for reason in accounts.examples if reason.startswith(f"{MALFORMED}.")}
    if 2 * (wrong := sum(malformed.values())) > rows:
        reason = next(reason for reason in accounts.examples if reason in malformed)
        raise _refusal(f"{wrong} of {rows} rows are malformed, the first", accounts.examples[reason])
    if not counts["samples"]:
        reason = max(accounts.examples, key=lambda reason: counts[reason])
        name = reason.partition(".")[2]
        raise _refusal(
            f"none of {rows} rows can be learned from, {counts[reason]} of them for {name}, the first",
            accounts.examples[reason],
        )


def _refusal(what: str, example: Example) -> UsageError:
    hint = example.hint or "look at that row and at the chat template of the verifier's tokenizer"
    return UsageError(f"{what} {example.where}: {example.words}", hint=hint)
