"""Conversations as tokens and masks, or the reason why there are none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from spec_convert.training.conversations.conversation import REASONING
from spec_convert.training.masking.masker import Masked, Masker, Unmaskable

if TYPE_CHECKING:
    from datasets import Dataset  # type: ignore[import-untyped]

MALFORMED, LEFT_OUT = "malformed", "left_out"
NO_ANSWER, ALL_ZERO, CUT_BEFORE_ANSWER = "no_answer", "all_zero_mask", "cut_before_answer"
UNSAID_REASONING, CUT_REASONING = "reasoning_not_rendered", "cut_while_reasoning"


@dataclass(frozen=True)
class Tokenise:
    """What `datasets` maps over batches of the table of conversations: tokens and mask, or why there are none.

    ``outcome`` is empty for a row that is kept, else `malformed.REASON` or `left_out.REASON`.
    """

    masker: Masker
    seq_length: int

    def __call__(self, batch: Mapping[str, Sequence[Any]]) -> dict[str, list[Any]]:
        wrong_ones = zip(batch["wrong"], batch["words"], batch["messages"], strict=True)
        results = [
            _left_out(f"{MALFORMED}.{wrong}", words) if wrong else self._tokens(messages)
            for wrong, words, messages in wrong_ones
        ]
        return {column: [result[column] for result in results] for column in results[0]}

    def _tokens(self, messages: Sequence[Mapping[str, str | None]]) -> dict[str, Any]:
        if not any(message["role"] == "assistant" for message in messages):
            return _left_out(f"{LEFT_OUT}.{NO_ANSWER}", "no assistant answers in it")
        cut = [number for number, message in enumerate(messages) if message["cut"]]
        said = [
            {key: value for key, value in message.items() if value is not None and key != "cut"} for message in messages
        ]
        try:
            masked = self._mask(said, cut)
        except Unmaskable as unknown:
            return _left_out(f"{LEFT_OUT}.{unknown.reason}", str(unknown))
        if not any(masked.loss_mask):
            return _left_out(f"{LEFT_OUT}.{ALL_ZERO}", "the chat template says of no token that the verifier says it")
        ids, mask = masked.input_ids[: self.seq_length], masked.loss_mask[: self.seq_length]
        if not (learned := sum(mask)):
            words = f"its answers begin after the first {self.seq_length} of {len(masked.input_ids)} tokens"
            return _left_out(f"{LEFT_OUT}.{CUT_BEFORE_ANSWER}", words)
        return {
            "outcome": "", "words": "", "input_ids": ids, "loss_mask": mask, "tokens": len(ids), "learned": learned,
            "truncated": len(ids) < len(masked.input_ids), "cut": len(cut), "rewritten": masked.rewritten_answers,
        }  # fmt: skip

    def _mask(self, said: Sequence[Mapping[str, str]], cut: Sequence[int]) -> Masked:
        """Raises Unmaskable, too, for answers that would be learned as if nothing had been thought before them."""
        for number in cut:
            if REASONING in said[number] and not said[number]["content"].strip():
                words = f"message {number + 1} was cut in its `{REASONING}`, which the chat template would end"
                raise Unmaskable(CUT_REASONING, words)
        masked = self.masker.mask(said, cut=cut)
        for number, message in enumerate(said):
            if REASONING not in message:
                continue
            spoken = {"role": message["role"], "content": message["content"]}
            if self.masker.mask([*said[:number], spoken, *said[number + 1 :]], cut=cut) == masked:
                words = f"the chat template writes nothing of the `{REASONING}` of message {number + 1}"
                raise Unmaskable(UNSAID_REASONING, words)
        return masked


def tokenised(table: Dataset, tokenise: Tokenise, key: str, *, num_proc: int) -> Dataset:
    """The rows of ``table`` without their messages, and with what `Tokenise` makes of each.

    ``key`` must change with whatever changes the result: what was computed for the same one is read from the cache.
    """
    from datasets import Features, List, Value

    text, number = Value("string"), Value("int32")
    features = Features({
        **{name: table.features[name] for name in ("row", "where", "began_with_answer", "hint")},
        "outcome": text, "words": text, "tokens": number, "learned": number, "truncated": Value("bool"),
        "cut": number, "rewritten": number,
        "input_ids": List(number), "loss_mask": List(Value("bool")),
    })  # fmt: skip
    return table.map(
        tokenise, batched=True, batch_size=100, remove_columns=["messages", "wrong", "words"], features=features,
        num_proc=num_proc if num_proc > 1 else None, new_fingerprint=key,
    )  # fmt: skip


def _left_out(outcome: str, words: str) -> dict[str, Any]:
    return {
        "outcome": outcome, "words": words, "input_ids": [], "loss_mask": [], "tokens": 0, "learned": 0,
        "truncated": False, "cut": 0, "rewritten": 0,
    }  # fmt: skip
