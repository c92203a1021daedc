"""Commands as one types them: a shell reads back what was meant."""

from __future__ import annotations

import shlex

from hypothesis import given
from hypothesis import strategies as st

from spec_convert.training.demo.typed import WIDTH, as_typed

WORDS = st.lists(st.text(st.characters(exclude_characters="\\\n\r", exclude_categories=["Cc", "Cs"])), min_size=1)


@given(WORDS)
def test_a_shell_reads_the_same_words(words: list[str]) -> None:
    assert shlex.split(as_typed(words).replace(" \\\n", " ")) == words


def test_a_long_command_is_broken_before_an_option_and_never_after_one() -> None:
    command = ["spec-convert", "verb", *("--an-option", "its/value/that/is/long") * 9, "--flag"]
    lines = as_typed(command).split(" \\\n")
    assert len(lines) > 3
    assert all(len(line) <= WIDTH for line in lines)
    assert all(line.startswith("    --an-option its/value") for line in lines[1:])


def test_a_short_one_is_one_line() -> None:
    assert as_typed(["spec-convert", "detect", "a folder"]) == "spec-convert detect 'a folder'"
