"""Masks are exact to the token, or the conversation is refused with a reason."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spec_convert.errors import UsageError
from spec_convert.training.masking.masker import Masked, Masker, Unmaskable
from spec_convert.training.masking.row import Row, words_set_apart

from .small import CHATML, SPECIAL, byte_tokenizer

Messages = list[dict[str, str]]
SPECIAL_WORDS = {
    "chatml": SPECIAL,
    "llama3": ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    "mistral": ("<s>", "</s>"),
    "tagged": ("<|turn|>", "<|stop|>"),
}
ENDS = {"chatml": "<|im_end|>", "llama3": "<|eot_id|>", "mistral": "</s>", "tagged": "<|stop|>"}
TURN = "<|im_start|>{{ m.role }}\n"


def tokenizer_of(name: str) -> Any:
    """One token for every byte and special word."""
    template = (Path(__file__).parent / "templates" / f"{name}.jinja").read_text()
    return byte_tokenizer(SPECIAL_WORDS[name], end=ENDS[name], template=template)


def chat(*texts: str, system: str | None = None) -> Messages:
    """Question, answer, question, …"""
    turns = [{"role": ("user", "assistant")[place % 2], "content": text} for place, text in enumerate(texts)]
    return [{"role": "system", "content": system}, *turns] if system is not None else turns


def runs(mask: list[bool]) -> Iterator[tuple[int, int]]:
    """First token of each learned run, and the one after its last."""
    for learned, group in groupby(range(len(mask)), key=mask.__getitem__):
        places = list(group)
        if learned:
            yield places[0], places[-1] + 1


def said(tokenizer: Any, masked: Masked) -> list[str]:
    return [tokenizer.decode(masked.input_ids[start:end]) for start, end in runs(masked.loss_mask)]


def refusal(masker: Masker, messages: Messages) -> str:
    with pytest.raises(Unmaskable) as refused:
        masker.mask(messages)
    assert len(str(refused.value)) > 20, "the reason in words"
    return refused.value.reason


# Counted by hand. With the template's own system prompt, ChatML begins with 22 tokens: <|im_start|>, 6 of `system`,
# a line end, 12 of the prompt, <|im_end|>, a line end. A user's header is 6 tokens, an assistant's 11.
CASES: list[tuple[str, Messages, int, list[tuple[int, int]]]] = [
    ("chatml", chat("Hi", "Yo"), 47, [(43, 46)]),
    ("chatml", chat("Hi", "Yo", system="S"), 36, [(32, 35)]),
    ("chatml", chat("Hi", "Yo", "Ok?", "Aha", system="S"), 63, [(32, 35), (58, 62)]),
    ("chatml", chat("Hi", "", "Ok?", "", "!", "é"), 93, [(43, 44), (67, 68), (89, 92)]),
    ("chatml", chat("Hi", "\nYo", "Ok?"), 59, [(43, 47)]),
    ("chatml", chat("Hi"), 32, []),
    ("chatml", chat("Hi<|im_end|>\n<|im_start|>assistant\nNo", "Yo"), 62, [(58, 61)]),
    ("chatml", chat("Hi", "a<|im_start|>b"), 48, [(43, 47)]),
    ("llama3", chat("Hi", "Yo"), 28, [(25, 28)]),
    ("llama3", chat("Hi", "Yo", "Ok?", "Aha"), 57, [(25, 28), (53, 57)]),
    ("llama3", chat("Hi", "\n Yo \n", "Ok?", "Aha", system="S"), 69, [(37, 40), (65, 69)]),
    ("llama3", chat("Hi", "", "Ok?", "é😀"), 58, [(25, 26), (51, 58)]),
    ("mistral", chat("Hi", "Yo"), 22, [(18, 22)]),
    ("mistral", chat("Hi", "Yo", "Ok?", "Aha"), 45, [(18, 22), (40, 45)]),
    ("mistral", chat("Hi", "", "Ok?", "[INST]", "!", "é"), 66, [(18, 20), (38, 46), (62, 66)]),
    ("tagged", chat("Hi", "Yo"), 25, [(21, 24)]),
    ("tagged", chat("Hi", "Yo", "Ok?", "Aha", system="S"), 63, [(32, 35), (58, 62)]),
    ("tagged", chat("Hi", "", "Ok?", "\né"), 50, [(21, 22), (45, 49)]),
]


@pytest.mark.parametrize(("name", "messages", "tokens", "expected"), CASES)
def test_the_learned_tokens_are_those_counted_by_hand(
    name: str, messages: Messages, tokens: int, expected: list[tuple[int, int]]
) -> None:
    tokenizer = tokenizer_of(name)
    masked = Masker(tokenizer).mask(messages)
    assert list(runs(masked.loss_mask)) == expected
    assert len(masked.input_ids) == len(masked.loss_mask) == tokens
    assert masked.input_ids == tokenizer.apply_chat_template(messages, return_dict=False)


@pytest.mark.parametrize(
    ("name", "how"),
    [("chatml", "prefixes"), ("llama3", "prefixes"), ("mistral", "prefixes"), ("tagged", "generation tags")],
)
def test_tags_are_used_where_there_are_some(name: str, how: str) -> None:
    assert Masker(tokenizer_of(name)).how == how


WORDS = [word for words in SPECIAL_WORDS.values() for word in words]
TEXTS = st.lists(
    st.sampled_from([*WORDS, "[INST]", "assistant", "\n", " ", "|>", "<|"]) | st.text(max_size=4), max_size=4
).map("".join)


@pytest.mark.parametrize("name", ENDS)
@settings(max_examples=60, deadline=None)
@given(texts=st.lists(TEXTS, min_size=2, max_size=6))
def test_what_is_learned_is_the_answers_and_their_end_tokens(name: str, texts: list[str]) -> None:
    tokenizer, messages, answers = TOKENIZERS[name], chat(*texts), texts[1::2]
    if name != "tagged" and any(ENDS[name] in answer for answer in answers):
        assert refusal(MASKERS[name], messages) == "end_inside_answer"
        return
    masked = MASKERS[name].mask(messages)
    written = [" " + answer if name == "mistral" else answer for answer in answers]
    if name == "llama3":
        written = [answer.strip() for answer in answers]
    assert said(tokenizer, masked) == [answer + ENDS[name] for answer in written]


TOKENIZERS = {name: tokenizer_of(name) for name in ENDS}
MASKERS = {name: Masker(tokenizer) for name, tokenizer in TOKENIZERS.items()}


@settings(max_examples=60, deadline=None)
@given(texts=st.lists(TEXTS, min_size=2, max_size=6))
def test_tags_give_the_mask_of_transformers_where_that_is_right(texts: list[str]) -> None:
    theirs = TOKENIZERS["tagged"].apply_chat_template(chat(*texts), return_assistant_tokens_mask=True)
    assert MASKERS["tagged"].mask(chat(*texts)) == Masked(
        theirs["input_ids"], [bool(learned) for learned in theirs["assistant_masks"]]
    )


# Tags around the content alone, where transformers loses tokens or finds too many.
BARE = (
    "{% for m in messages %}" + TURN + "{% if m.role == 'assistant' %}{% generation %}{{ m.content }}"
    "{% endgeneration %}{% else %}{{ m.content }}{% endif %}<|im_end|>\n{% endfor %}"
)


@pytest.mark.parametrize("trims", [False, True])
@pytest.mark.parametrize(
    ("answers", "wrong"), [(("ok 😀", "é"), {False, True}), ((" a", "b"), {True}), (("a ", "b"), {True})]
)
def test_tags_are_exact_where_the_mask_of_transformers_is_not(
    answers: tuple[str, str], wrong: set[bool], *, trims: bool
) -> None:
    from tokenizers.processors import ByteLevel

    tokenizer = byte_tokenizer(template=BARE)
    if trims:  # as the tokenizers of Llama 3 do: blanks belong to no token
        tokenizer.backend_tokenizer.post_processor = ByteLevel(trim_offsets=True)
    messages = chat("q", answers[0], "q", answers[1])
    assert said(tokenizer, Masker(tokenizer).mask(messages)) == list(answers)
    theirs = tokenizer.apply_chat_template(messages, return_assistant_tokens_mask=True)
    found = said(tokenizer, Masked(theirs["input_ids"], list(map(bool, theirs["assistant_masks"]))))
    assert (found != list(answers)) is (trims in wrong)


HELD = [
    "{% macro turn(m) %}TAG{% endmacro %}{% for m in messages %}{{ turn(m) }}{% endfor %}",
    "{% for m in messages %}{% set turn %}TAG{% endset %}{{ turn }}{% endfor %}",
    "{% for m in messages %}{% filter trim %}TAG{% endfilter %}{% endfor %}",
    "{% for m in messages recursive %}TAG{% endfor %}",
]


@pytest.mark.parametrize("template", HELD)
def test_tags_that_transformers_loses_the_place_of_are_refused(template: str) -> None:
    tag = TURN + "{% if m.role == 'assistant' %}{% generation %}{{ m.content }}{% endgeneration %}{% endif %}"
    tokenizer = byte_tokenizer(template=template.replace("TAG", tag))
    theirs = tokenizer.apply_chat_template(chat("q", "answer"), return_assistant_tokens_mask=True)
    found = said(tokenizer, Masked(theirs["input_ids"], list(map(bool, theirs["assistant_masks"]))))
    assert found != ["answer"], "transformers knows the place by now: this need not be refused"
    with pytest.raises(UsageError, match="cannot tell where in the text it stands"):
        Masker(tokenizer)


def test_tags_that_mark_nothing_are_not_taken_for_silence() -> None:
    template = CHATML + "{% if false %}{% generation %}{% endgeneration %}{% endif %}"
    masker = Masker(byte_tokenizer(template=template))
    assert refusal(masker, chat("q", "a")) == "nothing_marked"
    assert not any(masker.mask(chat("q")).loss_mask)


def test_tags_in_a_comment_are_none() -> None:
    masker = Masker(byte_tokenizer(template="{# {% generation %}{% endgeneration %} #}" + CHATML))
    assert masker.how == "prefixes"
    assert sum(masker.mask(chat("q", "abc")).loss_mask) == 4


def test_text_that_follows_the_end_token_in_an_answer_is_not_the_verifiers() -> None:
    assert refusal(MASKERS["chatml"], chat("Hi", "Yo<|im_end|>", "Ok?")) == "end_inside_answer"


@pytest.mark.parametrize(
    ("name", "messages", "reason"),
    [
        ("mistral", chat("Hi", "Yo", system="S"), "template_refuses"),
        ("mistral", [*chat("Hi"), *chat("Hi", "Yo")], "template_refuses"),
        ("chatml", [{"role": "assistant", "content": "Yo"}], "answer_first"),
        ("llama3", [], "empty"),
        ("tagged", [], "empty"),
    ],
)
def test_a_conversation_without_a_mask_is_refused(name: str, messages: Messages, reason: str) -> None:
    assert refusal(MASKERS[name], messages) == reason


def test_a_template_that_stumbles_over_a_conversation_refuses_it() -> None:
    template = CHATML + "{{ 'a' + 1 if messages[0].content == '!' }}"
    assert refusal(Masker(byte_tokenizer(template=template)), chat("!", "a")) == "template_refuses"


def test_two_answers_in_a_row_are_both_learned() -> None:
    messages = [*chat("Hi", "Yo"), {"role": "assistant", "content": "Well"}]
    assert said(TOKENIZERS["chatml"], MASKERS["chatml"].mask(messages)) == ["Yo<|im_end|>", "Well<|im_end|>"]


THINKING = (  # of earlier answers only what follows the thought is repeated
    "{% for m in messages %}" + TURN + "{{ m.content if loop.last else m.content.split('</think>')[-1] }}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def test_an_answer_whose_thought_is_dropped_later_is_not_learned() -> None:
    tokenizer = byte_tokenizer(template=THINKING)
    masker = Masker(tokenizer)
    assert said(tokenizer, masker.mask(chat("q", "hm</think>a"))) == ["hm</think>a<|im_end|>"]
    assert said(tokenizer, masker.mask(chat("q", "a", "q", "hm</think>b"))) == ["a<|im_end|>", "hm</think>b<|im_end|>"]
    cut = masker.mask(chat("q", "hm</think>a", "q", "b"))
    assert (said(tokenizer, cut), cut.rewritten_answers) == (["b<|im_end|>"], 1)
    assert refusal(masker, chat("q", "hm</think>a", "q")) == "history_rewritten"


def test_an_empty_thought_that_only_the_last_answer_shows_is_no_rewriting() -> None:
    """Qwen3 writes one before the last answer, and none before the earlier ones."""
    empty = "{{ '<think></think>' if loop.last and m.role == 'assistant' }}"
    tokenizer = byte_tokenizer(template=THINKING.replace(TURN, TURN + empty))
    masked = Masker(tokenizer).mask(chat("q", "a", "q", "b"))
    assert said(tokenizer, masked) == ["a<|im_end|>", "<think></think>b<|im_end|>"]
    assert masked.rewritten_answers == 0


def test_an_answer_whose_separate_thought_is_dropped_later_is_not_learned() -> None:
    thought = "{% if loop.last and m.reasoning_content %}<think>{{ m.reasoning_content }}</think>{% endif %}"
    tokenizer = byte_tokenizer(template=THINKING.replace(TURN, TURN + thought))
    messages = chat("q", "a", "q", "b")
    for answer in messages[1::2]:
        answer["reasoning_content"] = "a"
    masked = Masker(tokenizer).mask(messages)
    assert (said(tokenizer, masked), masked.rewritten_answers) == (["<think>a</think>b<|im_end|>"], 1)


def test_a_system_prompt_that_moves_is_rewritten_history() -> None:
    template = (
        "{% for m in messages %}{% if loop.last %}<|im_start|>system\nS<|im_end|>\n{% endif %}" + TURN
        + "{{ m.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )  # fmt: skip
    assert refusal(Masker(byte_tokenizer(template=template)), chat("q", "a")) == "history_rewritten"


def test_a_prompt_that_the_template_does_not_repeat_is_refused() -> None:
    template = CHATML.replace("<|im_start|>assistant\n", "<|im_start|>assistant\n<think>")
    assert template != CHATML
    assert refusal(Masker(byte_tokenizer(template=template)), chat("q", "a")) == "prompt_not_repeated"


def test_a_template_that_leaves_an_answer_out_is_refused() -> None:
    template = CHATML.replace("{% for message in messages %}", "{% for message in messages if message.content %}")
    assert template != CHATML
    masker = Masker(byte_tokenizer(template=template))
    assert refusal(masker, chat("q", "", "q", "a")) == "prompt_not_repeated"
    assert refusal(masker, [*chat("q", ""), {"role": "assistant", "content": "a"}]) == "history_rewritten"


def test_prompts_without_the_history_mark_no_answers() -> None:
    template = "<|im_start|>{% if not add_generation_prompt %}" + CHATML + "{% endif %}"
    masker = Masker(byte_tokenizer(template=template))
    assert refusal(masker, chat("q", "a", "q", "b")) == "history_rewritten"


def test_an_ending_that_depends_on_the_answer_is_refused() -> None:
    template = CHATML.replace("<|im_end|>", "{{ '<|im_end|>' if message.content[0] != '!' else '.' }}")
    masker = Masker(byte_tokenizer(template=template))
    assert masker.mask(chat("q", "a"))
    assert refusal(masker, chat("q", "!")) == "ending_varies"


def test_what_closes_the_whole_text_is_nobodys() -> None:
    template = CHATML + "{% if not add_generation_prompt %}<|endoftext|>{% endif %}"
    tokenizer = byte_tokenizer(template=template)
    masked = Masker(tokenizer).mask(chat("q", "a", "q", "b"))
    assert said(tokenizer, masked) == ["a<|im_end|>", "b<|im_end|>"]
    assert tokenizer.decode(masked.input_ids[-3:]) == "<|im_end|>\n<|endoftext|>"


def test_words_before_the_end_token_are_the_verifiers() -> None:
    tokenizer = byte_tokenizer(template=CHATML.replace("<|im_end|>\n", "\n<|im_end|>\n"))
    assert said(tokenizer, Masker(tokenizer).mask(chat("q", "a\n"))) == ["a\n\n<|im_end|>"]


def test_without_a_special_token_the_answer_alone_is_learned() -> None:
    template = (
        "{% for m in messages %}{{ '### ' + m.role + ': ' + m.content + '\n' }}{% endfor %}"
        "{% if add_generation_prompt %}### assistant: {% endif %}"
    )
    masked = Masker(byte_tokenizer(template=template)).mask(chat("Hi", "Yo", "!"))
    assert list(runs(masked.loss_mask)) == [(28, 30)]  # after 13 of `### user: Hi⏎` and 15 of `### assistant: `


@pytest.mark.parametrize("header", ["<|im_start|>assistant\n", "### Answer: "])
def test_a_header_that_is_no_prompt_is_refused_at_once(header: str) -> None:
    template = (
        "{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}<|im_end|>{% else %}"
        + header + "{{ m.content }}<|im_end|>{% endif %}{% endfor %}"
    )  # fmt: skip
    with pytest.raises(UsageError, match="takes no notice of add_generation_prompt") as refused:
        Masker(byte_tokenizer(template=template))
    assert "chat_template.jinja" in refused.value.hint


@pytest.mark.parametrize(
    ("template", "words"),
    [
        (None, "has no chat template"),
        ("{% for m in messages %}", "cannot be read: line 1"),
        ("{{ raise_exception('tools are required') }}", "tools are required"),
    ],
)
def test_a_tokenizer_without_a_usable_template_is_refused(template: str | None, words: str) -> None:
    with pytest.raises(UsageError, match=words) as refused:
        Masker(byte_tokenizer(template=template))
    assert refused.value.hint


def merging(*merges: tuple[str, str], template: str) -> Any:
    """A tokenizer of bytes that also merges these pairs, wherever they meet."""
    from tokenizers import AddedToken, Tokenizer
    from tokenizers.decoders import ByteLevel as Decoder
    from tokenizers.models import BPE
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import PreTrainedTokenizerFast

    words = [*sorted(ByteLevel.alphabet()), *(left + right for left, right in merges)]
    tokenizer = Tokenizer(BPE({word: number for number, word in enumerate(words)}, list(merges)))
    tokenizer.pre_tokenizer, tokenizer.decoder = ByteLevel(add_prefix_space=False, use_regex=False), Decoder()
    tokenizer.add_special_tokens([AddedToken("</s>", special=True, normalized=False)])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>")
    fast.chat_template = template
    return fast


def test_an_answer_that_begins_inside_a_token_is_refused() -> None:
    template = (
        "{% for m in messages %}{{ m.role[0] + ':' + m.content }}</s>{% endfor %}{% if add_generation_prompt %}a:"
        "{% endif %}"
    )
    masker = Masker(merging((":", "y"), ("n", "o"), template=template))
    assert list(runs(masker.mask(chat("yn", "no", "q", "")).loss_mask)) == [(6, 8), (14, 15)]
    assert refusal(masker, chat("q", "yes")) == "boundary_inside_token"
    assert refusal(masker, chat("q", "no", "q", "y")) == "boundary_inside_token"


def test_an_answer_that_ends_inside_a_token_is_refused() -> None:
    template = "{% for m in messages %}{{ m.content }};{% endfor %}"
    masker = Masker(merging(("!", ";"), template=template))
    assert list(runs(masker.mask(chat("q", "ab", "!")).loss_mask)) == [(2, 4)]
    assert refusal(masker, chat("q", "ab!")) == "boundary_inside_token"


def test_an_end_token_that_swallows_the_answers_last_word_is_refused() -> None:
    masker = Masker(byte_tokenizer((*SPECIAL, "!<|im_end|>")))
    assert masker.mask(chat("q", "a"))
    assert refusal(masker, chat("q", "a!")) == "boundary_inside_token"


def test_tags_inside_a_token_are_refused() -> None:
    template = "{% for m in messages %}:{% generation %}{{ m.content }}{% endgeneration %}</s>{% endfor %}"
    masker = Masker(merging((":", "y"), template=template))
    assert list(runs(masker.mask(chat("n")).loss_mask)) == [(1, 2)]
    assert refusal(masker, chat("y")) == "boundary_inside_token"


def test_a_masker_and_its_refusals_travel_between_processes() -> None:
    masker = pickle.loads(pickle.dumps(MASKERS["mistral"]))
    assert masker.mask(chat("Hi", "Yo")) == MASKERS["mistral"].mask(chat("Hi", "Yo"))
    with pytest.raises(Unmaskable) as refused:
        masker.mask(chat("Hi", system="S"))
    again = pickle.loads(pickle.dumps(refused.value))
    assert (again.reason, str(again)) == (refused.value.reason, str(refused.value))


@pytest.fixture(scope="module")
def smollm2_tokenizer(smollm2: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(smollm2)


def test_the_mask_of_a_real_model(smollm2_tokenizer: Any) -> None:
    masked = Masker(smollm2_tokenizer).mask(chat("Hi", "\nWell 😀 ", "Why?", "So <|im_start|>."))
    assert said(smollm2_tokenizer, masked) == ["\nWell 😀 <|im_end|>", "So <|im_start|>.<|im_end|>"]
    assert masked.input_ids[-2:] == [2, 198]  # <|im_end|> is learned, the line end after it is not
    assert masked.loss_mask[-2:] == [True, False]


def test_a_real_tokenizer_merges_line_ends_across_the_boundary(smollm2_tokenizer: Any) -> None:
    assert refusal(Masker(smollm2_tokenizer), chat("Hi", "\n\n\nWell")) == "boundary_inside_token"


TRICKY = ["Say  it: é\n\n 12345 ", "\n\n  <|im_start|> 😀 it's<|endoftext|>", "don't <x>\t<x>y<x> z<x>", " x\n "]


def agrees(tokenizer: Any, text: str) -> int:
    """Holds every boundary of a row to what tokenising the text before it finds. Returns how many there are."""
    row, exact = Row(tokenizer, text, words_set_apart(tokenizer)), 0
    for end in range(len(text) + 1):
        alone = tokenizer(text[:end], add_special_tokens=False)["input_ids"]
        if row.ids[: len(alone)] == alone:
            exact += 1
            assert row.tokens_before(end) == len(alone)
        else:
            with pytest.raises(Unmaskable):
                row.tokens_before(end)
    return exact


def test_the_shortcut_finds_what_tokenising_every_prefix_finds(smollm2_tokenizer: Any) -> None:
    text = smollm2_tokenizer.apply_chat_template(chat(*TRICKY), tokenize=False)
    assert 60 < agrees(smollm2_tokenizer, text) < len(text)


@pytest.mark.parametrize("scheme", ["first", "always", "never", "normalizer"])
@pytest.mark.parametrize("how", ["plain", "lstrip", "rstrip", "single_word", "normalized"])
def test_the_shortcut_holds_for_tokenizers_that_care_where_a_text_begins(scheme: Any, how: str) -> None:
    from tokenizers import AddedToken, Tokenizer, normalizers, pre_tokenizers
    from tokenizers.models import BPE
    from transformers import PreTrainedTokenizerFast

    merges = [("▁", "x"), ("▁", "i"), ("▁i", "t"), ("a", "y"), ("▁", "▁")]
    letters = sorted({*"".join(TRICKY), *"▁<>|_", *"userassistantim_endart"})
    words = [*letters, *(left + right for left, right in merges)]
    tokenizer = Tokenizer(BPE({word: number for number, word in enumerate(words)}, merges, unk_token="?"))
    if scheme == "normalizer":
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=True)
    flags: dict[str, Any] = {"normalized": False} | ({how: True} if how != "plain" else {})
    tokenizer.add_special_tokens([AddedToken("<x>", special=True, **flags)])
    agrees(PreTrainedTokenizerFast(tokenizer_object=tokenizer), "it<x>" + "".join(TRICKY))


def test_a_tokenizer_without_offsets_gives_the_same_mask() -> None:
    from tokenizers import AddedToken
    from transformers import ByT5Tokenizer

    slow = ByT5Tokenizer(extra_ids=0, chat_template=TOKENIZERS["chatml"].chat_template)
    slow.add_tokens([AddedToken(word, special=True, normalized=False) for word in SPECIAL])
    assert not slow.is_fast
    masked = Masker(slow).mask(chat("Hi", "Yo", "Ok?", "Aha", system="S"))
    assert list(runs(masked.loss_mask)) == [(32, 35), (58, 62)]


@pytest.mark.parametrize(("name", "content"), [("chatml", "Yo"), ("mistral", " Yo"), ("tagged", "Yo")])
def test_of_an_answer_that_was_cut_no_end_is_learned(name: str, content: str) -> None:
    masked = MASKERS[name].mask(chat("Hi", "Yo", "Ok?", "Aha"), cut=[1])
    assert said(TOKENIZERS[name], masked) == [content, ("" if name != "mistral" else " ") + "Aha" + ENDS[name]]


@pytest.mark.parametrize("after", ["<|im_end|>\n", " STOP", "<|im_end|><|endoftext|>"])
def test_of_a_cut_answer_nothing_is_learned_that_its_tag_holds_after_it(after: str) -> None:
    tokenizer = byte_tokenizer(template=BARE.replace("{% endgeneration %}", after + "{% endgeneration %}"))
    masked = Masker(tokenizer).mask(chat("q", "Yo", "q", "no"), cut=[1])
    assert said(tokenizer, masked) == ["Yo", "no" + after]


def test_a_cut_answer_whose_end_the_tag_varies_is_refused() -> None:
    ends = "{{ '.' if m.content == '!' else '<|im_end|>' }}{% endgeneration %}"
    masker = Masker(byte_tokenizer(template=BARE.replace("{% endgeneration %}", ends)))
    with pytest.raises(Unmaskable) as refused:
        masker.mask(chat("q", "!"), cut=[1])
    assert refused.value.reason == "ending_varies"


def test_a_cut_that_no_tag_can_be_given_is_refused() -> None:
    twice = BARE.replace("{% generation %}", "{% generation %}.{% endgeneration %}{% generation %}")
    masker = Masker(byte_tokenizer(template=twice))
    assert masker.mask(chat("q", "a"))
    with pytest.raises(Unmaskable) as refused:
        masker.mask(chat("q", "a"), cut=[1])
    assert refused.value.reason == "cut_unplaced"
