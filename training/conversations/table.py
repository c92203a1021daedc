"""All rows of a data set in one Arrow file of the cache: what each says, or what is wrong with it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from spec_convert.errors import UsageError
from spec_convert.evaluation.conversation import MalformedRow
from spec_convert.training.conversations.conversation import REASONING
from spec_convert.training.conversations.reading import as_conversation
from spec_convert.training.conversations.sources import Source

if TYPE_CHECKING:
    from datasets import Dataset  # type: ignore[import-untyped]


def conversations_of(sources: Sequence[Source], key: str) -> Dataset:
    """A row for each row of ``sources``, in order; read once for each ``key``, and from the cache after that.

    Columns: ``row`` (its number), ``where``, ``messages`` as chat templates want them, ``began_with_answer`` (see
    `Conversation`), and for a malformed row ``wrong`` (the reason), ``words`` and ``hint``, else empty. Raises
    UsageError, or OSError when the cache does not take them.
    """
    from datasets import Dataset, Features, Value
    from datasets.exceptions import DatasetGenerationError  # type: ignore[import-untyped]

    text = Value("string")
    message = {"role": text, "content": text, REASONING: text, "cut": Value("bool")}
    features = Features({
        "row": Value("int64"), "where": text, "messages": [message],
        "began_with_answer": Value("bool"), "wrong": text, "words": text, "hint": text,
    })  # fmt: skip
    try:
        return Dataset.from_generator(lambda: _rows(sources), features=features, fingerprint=key)
    except DatasetGenerationError as error:
        if isinstance(error.__cause__, UsageError | OSError):
            raise error.__cause__ from None
        raise


def _rows(sources: Sequence[Source]) -> Iterator[dict[str, Any]]:
    rows = (found for source in sources for found in source.read())
    number = -1
    for number, (where, row) in enumerate(rows):
        read: dict[str, Any] = {"messages": [], "began_with_answer": False, "wrong": "", "words": "", "hint": ""}
        try:
            conversation = as_conversation(row, where)
        except MalformedRow as wrong:
            read |= {"wrong": wrong.reason, "words": str(wrong), "hint": wrong.hint}
        else:
            messages = [{**message.as_dict(), "cut": message.cut} for message in conversation.messages]
            read |= {"messages": messages, "began_with_answer": conversation.began_with_answer}
        yield {"row": number, "where": where, **read}
    if number < 0:
        names = ", ".join(source.name for source in sources)
        raise UsageError(f"{names} holds no row", hint="give a file or data set of conversations")
