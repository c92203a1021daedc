"""`spec-convert prepare`: what becomes of every row, what is refused in one clear line, what is shown."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

from spec_convert.errors import UsageError
from spec_convert.training.masking.masker import Masked, Masker
from spec_convert.training.preparation.preparing import prepare
from spec_convert.training.store.reading import open_store

from ..small import CHATML, byte_tokenizer
from .rows import (
    HEADLESS,
    LATE,
    ONE,
    STRANGER,
    SYSTEM,
    TWO,
    UNANSWERED,
    Cli,
    answers,
    use_cache,
    with_tokenizer,
    written,
)

# What becomes of the rows


def test_every_row_is_accounted_for(cli: Cli, tmp_path: Path, verifier: Path) -> None:
    source = written(tmp_path / "p.jsonl", ONE, UNANSWERED, TWO, STRANGER, HEADLESS, STRANGER, LATE)
    ran = cli("prepare", source, tmp_path / "out", "--verifier", verifier, "--seq-length", 40, "--json")
    assert ran.code == 0
    assert ran.json == {
        "output": str(tmp_path / "out"),
        "verifier": str(verifier),
        "masks": "prefixes",
        "shards": 1,
        "seq_length": 40,
        "rows": 7,
        "samples": 3,
        "tokens": 25 + 40 + 25,
        "answer_tokens": 9,
        "answer_share": 0.1,
        "truncated": 1,
        "began_with_answer": 1,
        "cut_answers": 0,
        "rewritten_answers": 0,
        "malformed": {
            "unknown_role": {"rows": 2, "first": f"{source}:4", "words": "message 1 is said by 'tool'"},
        },
        "left_out": {
            "no_answer": {"rows": 1, "first": f"{source}:2", "words": "no assistant answers in it"},
            "cut_before_answer": {
                "rows": 1,
                "first": f"{source}:7",
                "words": "its answers begin after the first 40 of 76 tokens",
            },
        },
    }
    store = open_store(tmp_path / "out")
    store.verify()
    assert store.manifest.counts == {
        "rows": 7, "samples": 3, "tokens": 90, "answer_tokens": 9, "truncated": 1, "began_with_answer": 1,
        "cut_answers": 0, "rewritten_answers": 0,
        "left_out.cut_before_answer": 1, "left_out.no_answer": 1, "malformed.unknown_role": 2,
    }  # fmt: skip


def test_the_end_of_an_answer_that_was_cut_is_not_learned(cli: Cli, tmp_path: Path, verifier: Path) -> None:
    row = {**TWO, "finish_reasons": ["length", "stop"]}
    source = written(tmp_path / "cut.jsonl", row, {**row, "finish_reasons": ["stop"]}, row)
    ran = cli("prepare", source, tmp_path / "out", "--verifier", verifier, "--json")
    assert (ran.json["samples"], ran.json["cut_answers"]) == (2, 2)
    assert ran.json["malformed"]["finish_reasons"]["first"] == f"{source}:2"
    assert open_store(tmp_path / "out")[0].loss_mask.nonzero().flatten().tolist() == [21, 22, 46]


def test_tokens_and_mask_are_exact_over_all_turns(tmp_path: Path, verifier: Path) -> None:
    prepare([written(tmp_path / "p.jsonl", TWO)], tmp_path / "out", verifier=verifier)
    (sample,) = open_store(tmp_path / "out")
    text = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nYo<|im_end|>\n"
    text += "<|im_start|>user\nSo<|im_end|>\n<|im_start|>assistant\n<|im_end|>\n"
    assert sample.input_ids.tolist() == byte_tokenizer()(text)["input_ids"]
    assert sample.loss_mask.nonzero().flatten().tolist() == [21, 22, 23, 46]
    assert sample.index == 0


def test_the_summary_says_the_same_in_words(cli: Cli, tmp_path: Path, verifier: Path) -> None:
    source = written(tmp_path / "p.jsonl", ONE, UNANSWERED, HEADLESS, STRANGER)
    ran = cli("prepare", source, tmp_path / "out", "--verifier", verifier)
    assert ran.out.splitlines() == [
        f"output      {tmp_path / 'out'}, 1 shard",
        f"verifier    {verifier}, masks by prefixes",
        "samples     2 of 4 rows",
        "tokens      50, of which 6 are answers (12.0%)",
        "cut         0 samples, at 2,048 tokens",
        "headless    1 samples that began with an answer to no question, which is left out",
        f"left out    1 no_answer: first {source}:2: no assistant answers in it",
        "            `spec-convert regenerate SOURCE… ANSWERED.jsonl` lets the verifier write the answers",
        f"malformed   1 unknown_role: first {source}:4: message 1 is said by 'tool'",
        "            known are user, human, system, assistant, gpt, chatgpt, model",
    ]
    assert ran.err.splitlines() == [f"INFO    reading {source}", "INFO    tokenising 4 rows"]


def test_what_a_row_says_cannot_speak_to_the_terminal(cli: Cli, tmp_path: Path, verifier: Path) -> None:
    source = written(tmp_path / "p.jsonl", ONE, {"a\x1b[31m\nkey": 1})
    ran = cli("prepare", source, tmp_path / "out", "--verifier", verifier)
    assert f"malformed   1 unknown_keys: first {source}:2: none of the keys a\\x1b[31m\\nkey holds" in ran.out


def test_a_row_is_cut_at_the_last_answer_token_that_fits(tmp_path: Path, verifier: Path) -> None:
    source = written(tmp_path / "p.jsonl", ONE)
    prepared = prepare([source], tmp_path / "out", verifier=verifier, seq_length=22)
    assert (prepared.accounts.counts["truncated"], prepared.accounts.counts["tokens"]) == (1, 22)
    assert answers(open_store(tmp_path / "out")) == ["Y"]
    assert prepare([source], tmp_path / "all", verifier=verifier, seq_length=25).accounts.counts["truncated"] == 0
    with pytest.raises(UsageError, match="none of 1 rows can be learned from, 1 of them for cut_before_answer") as none:
        prepare([source], tmp_path / "none", verifier=verifier, seq_length=21)
    assert none.value.hint == "give a larger --seq-length"
    assert not (tmp_path / "none").exists()


def test_what_the_template_refuses_is_counted_under_its_reason(tmp_path: Path, verifier: Path) -> None:
    refusing = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system prompt') }}{% endif %}" + CHATML
    picky = with_tokenizer(verifier, tmp_path / "picky", byte_tokenizer(template=refusing))
    prepared = prepare([written(tmp_path / "p.jsonl", ONE, SYSTEM, SYSTEM)], tmp_path / "out", verifier=picky)
    (reason,) = prepared.accounts.examples
    assert reason.startswith("left_out.")
    assert prepared.accounts.counts[reason] == 2
    assert prepared.accounts.examples[reason].where.endswith("p.jsonl:2")
    assert "no system prompt" in prepared.accounts.examples[reason].words


def test_a_mask_without_any_token_is_no_sample(tmp_path: Path, verifier: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Masker, "mask", lambda self, messages, cut: Masked([1, 2], [False, len(messages) > 2]))
    prepared = prepare([written(tmp_path / "p.jsonl", ONE, TWO)], tmp_path / "out", verifier=verifier)
    assert prepared.accounts.counts["left_out.all_zero_mask"] == 1
    with pytest.raises(UsageError, match=r"1 of them for all_zero_mask, the first .*one\.jsonl:1") as none:
        prepare([written(tmp_path / "one.jsonl", ONE)], tmp_path / "none", verifier=verifier)
    assert "generation" in none.value.hint


def test_thoughts_that_the_template_does_not_write_are_not_passed_over(tmp_path: Path, verifier: Path) -> None:
    thought = {"role": "assistant", "content": "Yo", "reasoning_content": "Hm."}
    row = {"messages": [{"role": "user", "content": "Hi"}, thought]}
    prepared = prepare([written(tmp_path / "p.jsonl", row, ONE)], tmp_path / "out", verifier=verifier)
    assert prepared.accounts.counts["left_out.reasoning_not_rendered"] == 1
    writes = CHATML.replace("{{ message['content'] }}", "{{ message.reasoning_content }}{{ message['content'] }}")
    thinker = with_tokenizer(verifier, tmp_path / "thinker", byte_tokenizer(template=writes))
    prepare([written(tmp_path / "p.jsonl", row)], tmp_path / "thought", verifier=thinker)
    assert answers(open_store(tmp_path / "thought")) == ["Hm.Yo<|im_end|>"]


def test_thoughts_that_tags_leave_out_of_earlier_answers_are_not_passed_over(tmp_path: Path, verifier: Path) -> None:
    template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}{% generation %}"
        "{{ m.reasoning_content if loop.last }}{{ m.content }}<|im_end|>{% endgeneration %}{% else %}"
        "{{ m.content }}<|im_end|>{% endif %}\n{% endfor %}"
    )
    tagged = with_tokenizer(verifier, tmp_path / "tagged", byte_tokenizer(template=template))
    one = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yo", "reasoning_content": "Hm."}]
    source = written(tmp_path / "p.jsonl", {"messages": one}, {"messages": [*one, *one]})
    prepared = prepare([source], tmp_path / "out", verifier=tagged)
    assert answers(open_store(tmp_path / "out")) == ["Hm.Yo<|im_end|>"]
    assert prepared.accounts.examples["left_out.reasoning_not_rendered"].words.endswith("of message 2")


def test_a_thought_that_was_cut_is_not_ended_by_the_template(tmp_path: Path, verifier: Path) -> None:
    writes = CHATML.replace("{{ message['content'] }}", "{{ message.reasoning_content }}/{{ message['content'] }}")
    thinker = with_tokenizer(verifier, tmp_path / "thinker", byte_tokenizer(template=writes))
    rows = [
        {
            "messages": [
                {"role": "user", "content": "Hi"},
                {"role": "assistant", "content": content, "reasoning_content": "Hm"},
            ],
            "finish_reasons": [reason],
        }
        for content, reason in (("", "length"), ("Y", "length"), ("Yo", "stop"))
    ]
    prepared = prepare([written(tmp_path / "p.jsonl", *rows)], tmp_path / "out", verifier=thinker)
    assert sorted(answers(open_store(tmp_path / "out"))) == ["Hm/Y", "Hm/Yo<|im_end|>"]
    left_out = prepared.accounts.examples["left_out.cut_while_reasoning"]
    assert left_out.where.endswith("p.jsonl:1")
    assert "--max-tokens" in left_out.hint


def test_duplicates_are_kept_here(tmp_path: Path, verifier: Path) -> None:
    source = written(tmp_path / "p.jsonl", ONE)
    assert prepare([source, source], tmp_path / "out", verifier=verifier).accounts.counts["samples"] == 2


def test_several_sources_in_several_spellings_are_one_store(tmp_path: Path, verifier: Path) -> None:
    import pyarrow
    from pyarrow.parquet import write_table

    table = pyarrow.Table.from_pylist(
        [
            {"question": "Hi", "answer": "A", "messages": None},
            {"question": None, "answer": None, "messages": [{"role": "user", "content": "Hi"}]},
            {"question": None, "answer": None, "messages": None},
        ]
    )
    write_table(table, tmp_path / "p.parquet")
    (tmp_path / "p.json").write_text(json.dumps([{"prompt": "Hi", "response": "B"}, ONE]))
    prepared = prepare([tmp_path / "p.parquet", tmp_path / "p.json"], tmp_path / "out", verifier=verifier)
    assert sorted(answers(open_store(tmp_path / "out"))) == ["A<|im_end|>", "B<|im_end|>", "Yo<|im_end|>"]
    places = {reason: Path(example.where).name for reason, example in prepared.accounts.examples.items()}
    assert places == {"left_out.no_answer": "p.parquet: row 2", "malformed.unknown_keys": "p.parquet: row 3"}


# What is refused


def test_mostly_malformed_rows_are_an_error_with_the_first_reason(cli: Cli, tmp_path: Path, verifier: Path) -> None:
    source = written(tmp_path / "p.jsonl", ONE, {"messages": []}, STRANGER)
    ran = cli("prepare", source, tmp_path / "out", "--verifier", verifier)
    assert ran.code == 2
    assert f"error: 2 of 3 rows are malformed, the first {source}:2: `messages` is an empty list" in ran.err
    assert not (tmp_path / "out").exists()
    assert cli("prepare", written(source, ONE, STRANGER), tmp_path / "out", "--verifier", verifier).code == 0


def test_a_line_that_is_not_json_is_one_malformed_row(cli: Cli, tmp_path: Path, verifier: Path) -> None:
    source = written(tmp_path / "p.jsonl", ONE, TWO)
    source.write_text(source.read_text() + '{"messages":')
    ran = cli("prepare", source, tmp_path / "out", "--verifier", verifier, "--json")
    assert (ran.code, ran.json["samples"]) == (0, 2)
    assert ran.json["malformed"]["not_json"]["first"] == f"{source}:3"


def test_nothing_left_names_the_commonest_cause_and_what_to_type(cli: Cli, tmp_path: Path, verifier: Path) -> None:
    source = written(tmp_path / "p.jsonl", STRANGER, UNANSWERED, UNANSWERED)
    ran = cli("prepare", source, tmp_path / "out", "--verifier", verifier)
    assert ran.code == 2
    assert f"none of 3 rows can be learned from, 2 of them for no_answer, the first {source}:2" in ran.err
    assert "hint: `spec-convert regenerate" in ran.err


def test_bad_requests_get_one_line(cli: Cli, tmp_path: Path, verifier: Path) -> None:
    good, out = written(tmp_path / "p.jsonl", ONE), tmp_path / "out"
    silent = with_tokenizer(verifier, tmp_path / "silent", byte_tokenizer(template=None))
    damaged, own_code = (shutil.copytree(verifier, tmp_path / name) for name in ("damaged", "own code"))
    (damaged / "tokenizer.json").write_text("{}")
    settings = json.loads((own_code / "tokenizer_config.json").read_text())
    settings |= {"auto_map": {"AutoTokenizer": ["own.Own", None]}, "tokenizer_class": "Own"}
    (own_code / "tokenizer_config.json").write_text(json.dumps(settings))
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "a.tex").write_text("…")
    for args, what in {
        (written(tmp_path / "empty.jsonl"), out, "--verifier", verifier): "holds no row",
        (tmp_path / "absent.jsonl", out, "--verifier", verifier): "is no file here",
        (good, out, "--verifier", tmp_path / "absent"): "absent",
        (good, out, "--verifier", silent): "chat template",
        (good, out, "--verifier", damaged): "has no tokenizer that transformers can load",
        (good, out, "--verifier", own_code): "has no tokenizer that transformers can load",
        (good, tmp_path / "thesis", "--verifier", verifier): "is not empty: it holds a.tex",
        (good, out, "--verifier", verifier, "--show-mask", 1, "--json"): "leave one of them out",
        (good, out, "--verifier", verifier, "--seq-length", 0): "--seq-length",
        (good, "--verifier", verifier): "Missing argument",
        (good, out): "Missing option '--verifier'",
    }.items():
        ran = cli("prepare", *args)
        assert ran.code == 2, args
        assert what in ran.err
        assert "Traceback" not in ran.err
        assert not ran.out, "no question either"
    assert not out.exists()


def test_a_cache_that_cannot_be_written_is_named(
    cli: Cli, tmp_path: Path, verifier: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = written(tmp_path / "p.jsonl", ONE)
    use_cache(source / "below a file", monkeypatch)
    ran = cli("prepare", source, tmp_path / "out", "--verifier", verifier)
    assert ran.code == 2
    assert "error: the cache of `datasets` cannot be used" in ran.err
    assert "HF_DATASETS_CACHE=FOLDER" in ran.err


@pytest.mark.parametrize("library", ["datasets", "transformers"])
def test_without_the_libraries_the_message_says_what_to_install(
    library: str, cli: Cli, tmp_path: Path, verifier: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    ran = cli("prepare", written(tmp_path / "p.jsonl", ONE), tmp_path / "out", "--verifier", verifier)
    assert ran.code == 2
    assert f"`{library}`, which is not installed" in ran.err
    assert "hint: pip install 'spec-convert[train]'" in ran.err


# What is shown


def test_masks_are_shown_on_request(cli: Cli, tmp_path: Path, verifier: Path) -> None:
    source = written(tmp_path / "p.jsonl", ONE, ONE, ONE)
    ran = cli("prepare", source, tmp_path / "out", "--verifier", verifier, "--show-mask", 2)
    assert ran.out.count("Yo<|im_end|>") == 2
    assert ran.out.count("21:24") == 2
    assert "\x1b" not in ran.out
    assert ran.out.index("Yo") < ran.out.index("samples ")


@pytest.mark.parametrize("no_colour", ["", "1"])
def test_masks_are_coloured_on_a_terminal_unless_colour_is_unwanted(
    no_colour: str, tmp_path: Path, verifier: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("NO_COLOR", no_colour)
    source = written(tmp_path / "p.jsonl", ONE)
    ran = cli("prepare", source, tmp_path / "out", "--verifier", verifier, "--show-mask", 1)
    assert "Yo<|im_end|>" in ran.out
    assert ("\x1b[" in ran.out) is not bool(no_colour)
