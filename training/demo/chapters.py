"""What the demo tells, chapter by chapter: words for who has never seen it, and the commands that are run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from spec_convert.training.layout import RunLayout

EPOCHS = 7  # about two minutes on two cores
DRAFT_VOCABULARY = 1536
ANSWER_TOKENS = 64  # at most, of one answer
MEASURED = 8  # of the questions kept aside
TOKENS_MEASURED = 32  # of each answer at the end, which comes token by token, once with the draft and once without
BATCH = 50  # questions: so many answers an interruption can lose
ROW_TOKENS = 512
RATE = 1e-3  # high: there are few steps

OPENING = """\
A language model writes one token at a time, and each costs a pass through all of its
weights. Speculative decoding sets a small draft model beside it: the draft guesses a few
tokens ahead, the large model (the verifier) checks them in one pass, and keeps those that
it would have written itself. The text stays the same and comes sooner, the more so the
better the draft guesses.

Here such a draft is trained, published, converted and measured: on this machine, without
a network, in about five minutes. Whatever stands behind a $ is what runs, and you can type
it yourself. Ctrl-C at any time: the same command goes on from there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One command. ``name``: what run.json calls it. ``command``: without `spec-convert`.

    ``makes``: what is there when it has run, and need not be made again.
    """

    name: str
    command: tuple[str, ...]
    makes: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Chapter:
    """``words``: what happens here, and why."""

    title: str
    words: str
    stages: tuple[Stage, ...]


class Part(NamedTuple):
    """From questions to hidden states: of what is learned from, or of what is held out."""

    suffix: str  # of the names of its stages
    questions: Path
    answered: Path
    prepared: Path
    states: Path


@dataclass(frozen=True, slots=True)
class Places:
    """What lies where: as in the folder of any run, and what only the demo has beside that."""

    run: RunLayout

    @property
    def verifier(self) -> Path:
        return self.run.path / "verifier"

    @property
    def learned(self) -> Part:
        run = self.run
        return Part("", run.path / "questions.jsonl", run.answered, run.prepared, run.states)

    @property
    def held_out(self) -> Part:
        folder = self.run.held_out
        return Part(
            "-held-out", *(folder / name for name in ("questions.jsonl", "answered.jsonl", "prepared", "states"))
        )

    @property
    def published(self) -> Path:
        """The draft as EAGLE's authors would publish it."""
        return self.run.path / "published"

    @property
    def converted(self) -> Path:
        return self.run.path / "converted"


def chapters(places: Places, *, epochs: int = EPOCHS, draft_vocabulary: int = DRAFT_VOCABULARY) -> tuple[Chapter, ...]:
    """All that follows the verifier, in order."""
    return *_made(places), *_learned(places, epochs, draft_vocabulary), *_published(places), *_judged(places)


def _made(places: Places) -> Iterator[Chapter]:
    """From questions to hidden states: of what is learned from, and of what is held out."""
    yield Chapter(
        title="The verifier answers questions",
        words="A draft is to guess what this verifier says, so it learns from the verifier's own answers.\n"
        "The second set of questions is kept aside: on these the draft is judged.",
        stages=tuple(
            _stage(
                f"regenerate{part.suffix}", "regenerate", part.questions, part.answered, "--verifier", places.verifier,
                "--engine", "transformers", "--max-tokens", ANSWER_TOKENS, "--concurrent-requests", BATCH,
                makes=(part.answered,),
            )
            for part in (places.learned, places.held_out)
        ),
    )  # fmt: skip
    yield Chapter(
        title="Answers become tokens",
        words="And a mask says which of them the verifier itself has said.",
        stages=tuple(
            _stage(
                f"prepare{part.suffix}", "prepare", part.answered, part.prepared, "--verifier", places.verifier,
                "--num-proc", 1, makes=(part.prepared,),
            )
            for part in (places.learned, places.held_out)
        ),
    )  # fmt: skip
    yield Chapter(
        title="What the verifier thinks while it reads them",
        words="An EAGLE-3 draft is fed the verifier's hidden states at three of its layers, and learns\n"
        "what the verifier makes of them in the end. Here they are computed once, and kept.",
        stages=tuple(
            _stage(
                f"generate{part.suffix}", "generate", part.prepared, part.states, "--engine", "transformers",
                makes=(part.states,),
            )
            for part in (places.learned, places.held_out)
        ),
    )  # fmt: skip


def _learned(places: Places, epochs: int, draft_vocabulary: int) -> Iterator[Chapter]:
    run = places.run
    yield Chapter(
        title="A small vocabulary",
        words="The verifier has 49,152 tokens, and answers are made of few of them. A draft that knows\n"
        "only those is smaller and faster; what it cannot say, the verifier says.",
        stages=(
            _stage(
                "vocab", "vocab", run.states, run.vocabulary, "--draft-vocab-size", draft_vocabulary, "--force",
                makes=(run.vocabulary,),
            ),
        ),
    )  # fmt: skip
    yield Chapter(
        title="The draft learns",
        words="It has one layer; embedding and states are the verifier's. The loss says how far its guesses\n"
        "are off, and tau what they are worth: tokens for each pass of the verifier. Without a draft\n"
        "it is 1. About two minutes.",
        stages=(
            _stage(
                "train", "train", "--draft", "eagle3", "--verifier", places.verifier, "--data-path", run.states,
                "--val-data-path", places.held_out.states, "--d2t-path", run.vocabulary / "d2t.npy",
                "--t2d-path", run.vocabulary / "t2d.npy", "--save-path", run.training, "--epochs", epochs,
                "--lr", RATE, "--total-seq-len", ROW_TOKENS, "--learn-prompts", makes=(run.training / "best",),
            ),
        ),
    )  # fmt: skip


def _published(places: Places) -> Iterator[Chapter]:
    """From here on it is the story of any draft that somebody has published."""
    run = places.run
    yield Chapter(
        title="The draft is published",
        words="Drafts are found in a dozen layouts that do not fit together. This one is that of EAGLE's\n"
        "authors; from here on, take it for a stranger's.",
        stages=(
            _stage(
                "export", "export", run.training / "best", places.published, "--to", "safeai", "--force",
                makes=(places.published,),
            ),
        ),
    )  # fmt: skip
    yield Chapter(
        title="What is it?",
        words="Its tensors and its config tell. No weight is read.",
        stages=(_stage("detect", "detect", places.published),),
    )
    yield Chapter(
        title="One command brings it back",
        words="Into the unified layout, which vLLM serves. Every tensor is moved, or refused with a reason.",
        stages=(
            _stage(
                "convert", "convert", places.published, places.converted, "--verifier", places.verifier, "--force",
                makes=(places.converted,),
            ),
        ),
    )  # fmt: skip


def _judged(places: Places) -> Iterator[Chapter]:
    run = places.run
    yield Chapter(
        title="Is it right?",
        words="The checks that a CI would run; at this level the draft itself is run.",
        stages=(
            _stage(
                "validate", "validate", places.converted, "--verifier", places.verifier, "--level", "forward",
                "--isolated", "--output", f"json={run.validation}", makes=(run.validation,),
            ),
        ),
    )  # fmt: skip
    yield Chapter(
        title="Does it help?",
        words="On the questions kept aside: how often the verifier accepts the first, second and third\n"
        "guess, and whether the text is the one that it writes alone. tau is what is gained where a\n"
        "pass over four tokens costs as much as one over one, as on a GPU; here it costs more.",
        stages=(
            _stage(
                "evaluate", "evaluate", places.converted, "--prompts", places.held_out.questions,
                "--limit", MEASURED, "--max-tokens", TOKENS_MEASURED, "--output", run.evaluation,
                makes=(run.evaluation,),
            ),
        ),
    )  # fmt: skip
    yield Chapter(
        title="All of it on one page",
        words="The curves of the training, the acceptance, and what it was made of and with.",
        stages=(_stage("report", "report", run.path, makes=(run.report,)),),
    )


def _stage(name: str, *command: object, makes: tuple[Path, ...] = ()) -> Stage:
    return Stage(name=name, command=tuple(map(str, command)), makes=makes)
