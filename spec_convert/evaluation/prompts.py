"""The questions of an evaluation: a file of conversations, MT-bench turns or plain lines, or a dataset on the Hub."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

from spec_convert.errors import UsageError
from spec_convert.evaluation.conversation import MalformedRow, as_prompt
from spec_convert.evaluation.prompt import Prompt
from spec_convert.evaluation.rows import read_rows


def read_prompts(source: str | Path, *, limit: int | None = None) -> list[Prompt]:
    """The first ``limit`` prompts of ``source``, or all.

    ``source`` is what `read_rows` reads. Answers in it are left out: they are to be written. Raises UsageError, which
    names the row that is no prompt.
    """
    rows = read_rows(source)
    prompts = []
    for where, row in rows if limit is None else islice(rows, limit):
        try:
            prompts.append(as_prompt(row))
        except MalformedRow as wrong:
            raise UsageError(f"{where}: {wrong}", hint=wrong.hint) from wrong
    if not prompts:
        raise UsageError(f"{source} holds no prompt", hint="give a file with at least one prompt")
    return prompts
