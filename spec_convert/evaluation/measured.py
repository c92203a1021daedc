"""What an evaluation found, as a value: printed, written as JSON, drawn as a page, compared with a threshold."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

SCHEMA_VERSION = 1
Engine = Literal["transformers", "vllm"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """Generated tokens and the wall-clock seconds they took, prompts included, loading and warm-up not."""

    tokens: int
    seconds: float

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.seconds if self.seconds else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """The first token at which a greedy answer with the draft is not the verifier's own.

    ``logits`` are the verifier's logits of the two tokens after the text that both answers share. When they are equal
    to within the rounding of the dtype it is a ``tie``: the order of additions decides, not the draft.
    """

    answer: int  # index among all answers
    position: int  # index within the answer
    with_draft: int | None  # token id; None: the answer ended here
    verifier: int | None
    logits: tuple[float, float] | None
    tie: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Counts first, shares derived from them, so that runs can be added up and compared."""

    engine: Engine
    draft: str
    verifier: str
    speculative_tokens: int  # K, drafted per verifier pass
    temperature: float  # 0: greedy
    prompts: int
    answers: int  # one per user turn
    drafts: int  # verifier passes that verified K drafted tokens
    accepted: tuple[int, ...]  # [K]: in how many of them the first k+1 tokens were all accepted
    alpha: tuple[float | None, ...] | None  # [K]: mean of sum min(p, q) where the tokens before were accepted
    with_draft: Speed
    verifier_alone: Speed | None  # None: not run
    differences: tuple[Difference, ...] | None  # None: not compared (sampled, or the verifier alone was not run)
    versions: dict[str, str]

    @property
    def acceptance_per_position(self) -> tuple[float, ...]:
        """[K]: the share of drafts whose first k+1 tokens were all accepted, as vLLM counts it."""
        return tuple(count / self.drafts if self.drafts else 0.0 for count in self.accepted)

    @property
    def conditional_acceptance(self) -> tuple[float | None, ...]:
        """[K]: the share among those drafts whose tokens before were accepted; None where there were none."""
        reached = (self.drafts, *self.accepted)
        return tuple(now / before if before else None for before, now in pairwise(reached))

    @property
    def mean_acceptance_length(self) -> float:
        """tau: tokens per verifier pass, the verifier's own bonus token included."""
        return 1 + sum(self.acceptance_per_position)

    @property
    def lengths(self) -> tuple[int, ...]:
        """[K+1]: how many drafts had exactly 0, 1, … K tokens accepted."""
        reached = (self.drafts, *self.accepted, 0)
        return tuple(before - now for before, now in pairwise(reached))

    @property
    def lossless(self) -> bool | None:
        """Whether every greedy answer is the verifier's own, ties aside. None: not compared."""
        return None if self.differences is None else all(difference.tie for difference in self.differences)

    @property
    def speedup(self) -> float | None:
        alone = self.verifier_alone.tokens_per_second if self.verifier_alone else 0.0
        return self.with_draft.tokens_per_second / alone if alone else None

    def to_json(self) -> dict[str, Any]:
        """The contract of `evaluate --json`."""
        alone = self.verifier_alone
        return {
            "schema_version": SCHEMA_VERSION,
            "engine": self.engine,
            "draft": self.draft,
            "verifier": self.verifier,
            "speculative_tokens": self.speculative_tokens,
            "temperature": self.temperature,
            "prompts": self.prompts,
            "answers": self.answers,
            "drafts": self.drafts,
            "accepted": list(self.accepted),
            "acceptance_per_position": list(self.acceptance_per_position),
            "conditional_acceptance": list(self.conditional_acceptance),
            "alpha": None if self.alpha is None else list(self.alpha),
            "mean_acceptance_length": self.mean_acceptance_length,
            "acceptance_lengths": list(self.lengths),
            "tokens_per_second": {
                "with_draft": self.with_draft.tokens_per_second,
                "verifier_alone": alone.tokens_per_second if alone else None,
            },
            "speedup": self.speedup,
            "tokens": {"with_draft": self.with_draft.tokens, "verifier_alone": alone.tokens if alone else None},
            "seconds": {"with_draft": self.with_draft.seconds, "verifier_alone": alone.seconds if alone else None},
            "lossless": self.lossless,
            "differences": None if self.differences is None else [_difference(one) for one in self.differences],
            "versions": self.versions,
        }


def _difference(found: Difference) -> dict[str, Any]:
    return {
        "answer": found.answer,
        "position": found.position,
        "with_draft": found.with_draft,
        "verifier": found.verifier,
        "logits": None if found.logits is None else list(found.logits),
        "tie": found.tie,
    }
