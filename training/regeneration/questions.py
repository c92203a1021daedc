"""What is asked: the user turns and system prompts of data sets, in the order of their rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from spec_convert.errors import UsageError
from spec_convert.evaluation.conversation import MalformedRow, as_prompt
from spec_convert.evaluation.prompt import Prompt
from spec_convert.training.conversations.sources import open_source
from spec_convert.training.regeneration.conversing import Asked

ENOUGH = 10  # as many failures at the very beginning mean that all will fail


@dataclass(frozen=True, slots=True)
class Problem:
    """A conversation that is left out. ``where``: file and line. ``reason``: the kind, as one word, to be counted."""

    where: str
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Questions:
    """``sources``: what their content is known by. ``malformed``: the rows that hold no question."""

    asked: tuple[Asked, ...]
    malformed: tuple[Problem, ...]
    sources: tuple[str, ...]
    limit: int | None

    def to_json(self) -> dict[str, object]:
        """What the answers depend on."""
        return {"sources": list(self.sources), "max_samples": self.limit}


def read_questions(names: Sequence[str], *, limit: int | None = None) -> Questions:
    """The first ``limit`` conversations of these sources, or all.

    Raises UsageError when a source cannot be read, and when its rows are no conversations.
    """
    sources = [open_source(name) for name in names]
    asked: list[Asked] = []
    malformed: list[Problem] = []
    rows = (row for source in sources for row in source.read())
    for place, (where, row) in enumerate(rows):
        if len(asked) == limit:
            break
        try:
            asked.append(Asked(place, where, _prompt(row)))
        except MalformedRow as wrong:
            malformed.append(Problem(where, wrong.reason, str(wrong)))
            if not asked and len(malformed) == ENOUGH:
                raise UsageError(
                    f"{where}: {wrong}; nor is any row before it a conversation", hint=wrong.hint
                ) from wrong
    if not asked:
        why = f": {malformed[0].where}: {malformed[0].message}" if malformed else ""
        raise UsageError(f"{', '.join(names)}: no conversation in it{why}", hint="one row must at least be one")
    return Questions(tuple(asked), tuple(malformed), tuple(source.content for source in sources), limit)


def _prompt(row: object) -> Prompt:
    prompt = as_prompt(row)
    try:
        "".join([prompt.system or "", *prompt.turns]).encode()
    except UnicodeEncodeError as error:
        raise MalformedRow(f"it is not valid Unicode: {error.reason}", "not_unicode") from error
    return prompt
