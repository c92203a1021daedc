"""A masked row is shown as text, with nothing lost and nothing garbled."""

from __future__ import annotations

from typing import Any

import click

from spec_convert.training.masking.masker import Masked, Masker
from spec_convert.training.masking.showing import show_mask

from .small import byte_tokenizer

MESSAGES = [
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Yo é"},
    {"role": "user", "content": "?"},
    {"role": "assistant", "content": ""},
]
TEXT = """\
<|im_start|>user
Hi<|im_end|>
<|im_start|>assistant
⟦Yo é<|im_end|>⟧
<|im_start|>user
?<|im_end|>
<|im_start|>assistant
⟦<|im_end|>⟧
"""


def test_learned_runs_stand_in_brackets() -> None:
    tokenizer = byte_tokenizer()
    shown = show_mask(tokenizer, Masker(tokenizer).mask(MESSAGES), colour=False)
    assert shown == "50 tokens, 7 learned, 2 spans: 21:27, 48:49\n" + TEXT


def test_learned_runs_are_green_and_the_rest_is_dim() -> None:
    tokenizer = byte_tokenizer()
    shown = show_mask(tokenizer, Masker(tokenizer).mask(MESSAGES), colour=True)
    assert "\x1b[32m\x1b[4mYo é<|im_end|>\x1b[0m" in shown
    assert shown.count("\x1b[32m") == 2
    assert shown.count("\x1b[2m") == 3
    assert click.unstyle(shown).split("\n", 1)[1] == TEXT.replace("⟦", "").replace("⟧", "")


def test_a_character_on_both_sides_of_a_boundary_is_shown_once_and_whole() -> None:
    tokenizer = byte_tokenizer()
    ids = tokenizer("a😀b")["input_ids"]
    assert show_mask(tokenizer, Masked(ids, [False, False, False, True, True, True]), colour=False) == (
        "6 tokens, 3 learned, 1 span: 3:6\na⟦😀b⟧"
    )


def test_a_row_of_nothing_learned_or_of_nothing_says_so() -> None:
    tokenizer = byte_tokenizer()
    ids = tokenizer("ab")["input_ids"]
    assert show_mask(tokenizer, Masked(ids, [False, False]), colour=False) == "2 tokens, 0 learned, 0 spans\nab"
    assert show_mask(tokenizer, Masked([], []), colour=False) == "0 tokens, 0 learned, 0 spans\n"


def test_a_blank_that_decoders_drop_at_the_beginning_of_a_text_is_kept() -> None:
    tokenizer = with_marked_words()
    ids = tokenizer("say it now", add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(ids[1:2]) == "it", "this decoder drops no blank"
    assert show_mask(tokenizer, Masked(ids, [False, True, False]), colour=False).split("\n")[1] == "say⟦ it⟧ now"


def test_terminal_escapes_of_a_data_set_do_nothing() -> None:
    tokenizer = byte_tokenizer()
    ids = tokenizer("a\x1b[2Jb\n")["input_ids"]
    assert show_mask(tokenizer, Masked(ids, [False] * len(ids)), colour=False).endswith("\na\\x1b[2Jb\n")


def with_marked_words() -> Any:
    """Words that begin with ▁, as SentencePiece has them."""
    from tokenizers import Tokenizer
    from tokenizers.decoders import Metaspace as Decoder
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Metaspace
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(WordLevel({"▁say": 0, "▁it": 1, "▁now": 2, "?": 3}, unk_token="?"))
    tokenizer.pre_tokenizer, tokenizer.decoder = Metaspace(), Decoder()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)
