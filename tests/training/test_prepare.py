"""`spec-convert prepare`: what becomes of every row, the bytes that are written, and one clear line for bad input."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import pytest

from spec_convert.cli import run
from spec_convert.errors import UsageError
from spec_convert.training.masking.masker import Masked, Masker
from spec_convert.training.preparation import outcomes, preparing
from spec_convert.training.preparation.accounts import Accounts
from spec_convert.training.preparation.preparing import prepare
from spec_convert.training.store.reading import Store, open_store

from ..cli.conftest import UNSET, Ran
from ..hub.server import FakeHub
from .small import CHATML, byte_tokenizer

Cli = Callable[..., Ran]

# In ChatML and a token a byte, from "<|im_start|>user" on:
# 1 + "user\n" + 2 + 1 + "\n" = 10, 1 + "assistant\n" = 11, the answer at 21, 22 and its end token at 23, "\n" at 24.
ONE = {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Yo"}]}
TWO = {"messages": [*ONE["conversations"], {"role": "user", "content": "So"}, {"role": "assistant", "content": ""}]}
UNANSWERED = {"turns": ["Why?", "How?"]}
STRANGER = {"messages": [{"role": "tool", "content": "42"}]}
HEADLESS = {"conversations": [{"from": "gpt", "value": "to what?"}, *ONE["conversations"]]}
LATE = {"question": "A question of many words, of which there are too many", "answer": "Yo"}
SYSTEM = {"messages": [{"role": "system", "content": "Be brief."}, *ONE["conversations"]]}


@pytest.fixture
def cli(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Cli:
    for name in UNSET:
        monkeypatch.delenv(name, raising=False)

    def call(*args: object) -> Ran:
        code = run([str(arg) for arg in args])
        said = capfd.readouterr()
        return Ran(code=code, out=said.out, err=said.err)

    return call


@pytest.fixture(autouse=True)
def _cache_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_cache(tmp_path / "cache", monkeypatch)


def use_cache(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", folder)


def written(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def many(path: Path, count: int = 30) -> Path:
    """Rows of different lengths, each told by its answer."""
    return written(path, *({"question": "Why?" * (1 + number % 3), "answer": f"{number}"} for number in range(count)))


def answers(store: Store) -> list[str]:
    """Token ids of the byte tokenizer are looked up, not parsed."""
    return [byte_tokenizer().decode(sample.input_ids[sample.loss_mask]) for sample in store]


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def with_tokenizer(verifier: Path, folder: Path, tokenizer: Any) -> Path:
    shutil.copytree(verifier, folder)
    (folder / "chat_template.jinja").unlink()
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def masked(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Sequence[Mapping[str, str]]]]:
    """The conversations that were masked in this process, and not taken from the cache."""
    seen: list[Sequence[Mapping[str, str]]] = []
    original = Masker.mask

    def mask(self: Masker, messages: Sequence[Mapping[str, str]], *, cut: Collection[int] = ()) -> Masked:
        seen.append(messages)
        return original(self, messages, cut=cut)

    monkeypatch.setattr(Masker, "mask", mask)
    return seen


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


# What is written


def test_a_seed_is_an_order_and_the_same_request_the_same_bytes(
    tmp_path: Path, verifier: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = many(tmp_path / "p.jsonl")
    for name, settings in {"one": {}, "again": {}, "other": {"seed": 1}, "few": {"max_samples": 7}}.items():
        use_cache(tmp_path / f"cache {name}", monkeypatch)
        prepare([source], tmp_path / name, verifier=verifier, **settings)
    one, other, few = (answers(open_store(tmp_path / name)) for name in ("one", "other", "few"))
    assert files(tmp_path / "one") == files(tmp_path / "again")
    assert one != other
    assert sorted(one) == sorted(other) == sorted(f"{number}<|im_end|>" for number in range(30))
    assert few == one[:7]
    assert [sample.index for sample in open_store(tmp_path / "few")] == list(range(7))


def test_two_processes_write_what_one_writes(tmp_path: Path, verifier: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = many(tmp_path / "p.jsonl", 9)
    for number in (1, 2):
        use_cache(tmp_path / f"cache {number}", monkeypatch)
        prepare([source], tmp_path / f"{number}", verifier=verifier, num_proc=number)
    assert len(list((tmp_path / "cache 2").rglob("cache-*_of_00002.arrow"))) == 2
    assert files(tmp_path / "1") == files(tmp_path / "2")


def test_no_more_rows_are_tokenised_than_the_wanted_samples_need(
    tmp_path: Path, verifier: Path, masked: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outcomes, "FEW_ROWS", 4)
    source = many(tmp_path / "p.jsonl", 40)
    with source.open("a") as more:
        more.write((json.dumps(UNANSWERED) + "\n") * 40)
    counts = prepare([source], tmp_path / "out", verifier=verifier, max_samples=3, num_proc=1).accounts.counts
    assert counts["samples"] == 3
    assert counts["rows"] == 3 + counts.get("left_out.no_answer", 0) < 20
    assert 3 <= len(masked) <= 6
    everything = prepare([source], tmp_path / "all", verifier=verifier, max_samples=50).accounts.counts
    assert (everything["rows"], everything["samples"]) == (80, 40)


def test_another_request_is_refused_and_says_what_differs(tmp_path: Path, verifier: Path) -> None:
    source, out = many(tmp_path / "p.jsonl", 4), tmp_path / "out"
    prepare([source], out, verifier=verifier)
    before = files(out)
    terse = with_tokenizer(verifier, tmp_path / "terse", byte_tokenizer(template=CHATML + "{# terse #}"))
    for settings, what in (
        ({"seed": 1}, "its seed is 0, not 1"),
        ({"seq_length": 40}, "its seq_length is 2048, not 40"),
        ({"max_samples": 2}, "its max_samples is None, not 2"),
        ({"verifier": terse}, "its chat_template is "),
    ):
        with pytest.raises(UsageError, match=what):
            prepare([source], out, **{"verifier": verifier, **settings})
    many(source, 5)
    with pytest.raises(UsageError, match=r"its sources is \['p.jsonl sha256:"):
        prepare([source], out, verifier=verifier)
    assert files(out) == before


def test_a_store_that_other_versions_began_is_not_gone_on_with(tmp_path: Path, verifier: Path) -> None:
    source, out = many(tmp_path / "p.jsonl", 4), tmp_path / "out"
    prepare([source], out, verifier=verifier)
    manifest = json.loads((out / "manifest.json").read_text())
    manifest["counts"]["tokens"] += 1
    (out / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UsageError, match=r"was begun with tokens (\d+) instead of"):
        prepare([source], out, verifier=verifier)


def test_an_unfinished_store_is_gone_on_with_by_the_same_versions_only(
    tmp_path: Path, verifier: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preparing, "SHARD_TOKENS", 50)
    source, out = many(tmp_path / "p.jsonl", 4), tmp_path / "out"
    prepare([source], out, verifier=verifier)
    whole = json.loads((out / "manifest.json").read_text())
    older = {**whole, "made_with": {**whole["made_with"], "tokenizers": "0.1"}}
    (out / "manifest.json").write_text(json.dumps(older))
    prepare([source], out, verifier=verifier)
    (out / "manifest.json").write_text(json.dumps({**older, "shards": older["shards"][:1]}))
    with pytest.raises(UsageError, match=r"was begun with tokenizers 0\.1 instead of"):
        prepare([source], out, verifier=verifier)


def test_a_shard_holds_as_many_whole_samples_as_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preparing, "SHARD_TOKENS", 200)
    kept, lengths = [3, 4, 6, 7, 9, 10], [100, 100, 1, 200, 201, 5]
    accounts = Accounts({}, {}, kept, lengths)
    assert preparing._shards(accounts) == [[3, 4], [6], [7], [9], [10]]


KILLED = """
import os, signal, sys
import datasets
from spec_convert.training.preparation import preparing
from spec_convert.training.store.writing import StoreWriter

source, output, verifier, cache = sys.argv[1:]
datasets.config.HF_DATASETS_CACHE = cache
preparing.SHARD_TOKENS = 200
write = StoreWriter.write

def dies(self, number, samples):
    if number == 2:
        open(self.folder / "shard-00002.partial", "wb").write(b"half of it")
        os.kill(os.getpid(), signal.SIGKILL)
    return write(self, number, samples)

StoreWriter.write = dies
preparing.prepare([source], output, verifier=verifier)
"""


def test_a_run_that_was_killed_ends_with_the_same_store(
    tmp_path: Path, verifier: Path, monkeypatch: pytest.MonkeyPatch, masked: list[Any]
) -> None:
    source, out, cache = many(tmp_path / "p.jsonl"), tmp_path / "out", tmp_path / "cache"
    command = [sys.executable, "-c", KILLED, source, out, verifier, cache]
    killed = subprocess.run(command, check=False, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    with pytest.raises(UsageError, match="is unfinished: 2 of"):
        open_store(out)
    monkeypatch.setattr(preparing, "SHARD_TOKENS", 200)
    untouched = (out / "shard-00000.safetensors").stat().st_ino
    prepared = prepare([source], out, verifier=verifier)
    assert not masked, "the other process has left its tokens in the cache"
    assert (out / "shard-00000.safetensors").stat().st_ino == untouched
    assert prepared.shards == len(open_store(out).manifest.shards) > 3
    assert [sample.index for sample in open_store(out)] == list(range(30))
    prepare([source], tmp_path / "whole", verifier=verifier)
    assert files(out) == files(tmp_path / "whole")


# What the cache knows


def test_tokens_come_from_the_cache_only_while_nothing_changed_that_makes_them(
    tmp_path: Path, verifier: Path, masked: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = many(tmp_path / "p.jsonl", 5)
    runs = iter(range(100))

    def computed(base: Path = verifier, **settings: Any) -> bool:
        masked.clear()
        prepare([source], tmp_path / f"out {next(runs)}", verifier=base, **settings)
        assert len(masked) in (0, 5)
        return bool(masked)

    assert computed()
    assert not computed()
    assert computed(seq_length=100)
    assert computed(seed=1)
    assert not computed(seed=1)
    vocabulary = byte_tokenizer(("<|im_start|>", "<|im_end|>", "<|another|>"))
    assert computed(with_tokenizer(verifier, tmp_path / "vocabulary", vocabulary))
    template = byte_tokenizer(template=CHATML + "{# the same, said otherwise #}")
    assert computed(with_tokenizer(verifier, tmp_path / "template", template))
    assert computed(with_tokenizer(verifier, tmp_path / "end", byte_tokenizer(end="<|endoftext|>")))
    monkeypatch.setattr(outcomes, "version", lambda name: "0.0.7" if name == "spec-convert" else "same")
    assert computed()
    assert not computed()
    many(source, 4)
    masked.clear()
    prepare([source], tmp_path / "changed", verifier=verifier)
    assert len(masked) == 4


def test_the_cache_knows_the_code_that_filled_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = outcomes.key_of("x")
    assert outcomes.key_of("x") == before != outcomes.key_of("y")
    package = tmp_path / "masking"
    shutil.copytree(Path(str(outcomes.masking.__file__)).parent, package)
    monkeypatch.setattr(outcomes.masking, "__file__", str(package / "__init__.py"))
    with (package / "masker.py").open("a") as file:
        file.write("# another rule\n")
    assert outcomes.key_of("x") != before


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


# Datasets on the Hub: the real library in a process of its own, which reads its environment when it is imported.


READ = """
import io, json, sys
from contextlib import redirect_stdout
from spec_convert.cli import run

verifier, *requests = sys.argv[1:]
for request in requests:
    with redirect_stdout(io.StringIO()) as said:
        code = run(["prepare", *request.split(), "--verifier", verifier, "--json"])
    print(json.dumps([code, said.getvalue()]))
"""


def test_datasets_on_the_hub_and_presets_are_downloaded(tmp_path: Path, verifier: Path) -> None:
    import pyarrow
    from pyarrow.parquet import write_table

    rows = [{"question": "Hi", "answer": "A", "image": 1}, {"question": "Hi", "answer": "B", "image": 2}]
    write_table(pyarrow.Table.from_pylist(rows), tmp_path / "p.parquet")
    card = b"---\nconfigs:\n- config_name: main\n  data_files: p.parquet\n---\n"
    chats = (json.dumps(ONE) + "\n" + json.dumps(UNANSWERED) + "\n").encode()
    with FakeHub() as hub:
        school = {"README.md": card, "p.parquet": (tmp_path / "p.parquet").read_bytes()}
        commit = hub.publish("datasets/openai/gsm8k", school)
        hub.publish("datasets/org/chats", {"train.jsonl": chats, "test.jsonl": chats})
        requests = ("gsm8k org/chats:train out", "org/chats none", "org/absent none")
        ran = subprocess.run(
            [sys.executable, "-c", READ, verifier, *requests], cwd=tmp_path, check=True, capture_output=True,
            env=os.environ | hub.environment(tmp_path / "home"), text=True,
        )  # fmt: skip
        downloads = [one.path for one in hub.requests if one.served and one.path.endswith("p.parquet")]
    (code, said), (ambiguous, _), (absent, _) = map(json.loads, ran.stdout.splitlines())
    assert (code, ambiguous, absent) == (0, 2, 2)
    report = json.loads(said)
    assert (report["samples"], report["rows"]) == (3, 4)
    assert report["left_out"]["no_answer"]["first"] == "org/chats:train: row 2"
    assert len(downloads) == 1
    sources = open_store(tmp_path / "out").manifest.request["sources"]
    assert sources[0] == f"openai/gsm8k:main:train commit:{commit}"
    assert "error: org/chats has several splits" in ran.stderr
    assert "error: the dataset org/absent cannot be read" in ran.stderr
    assert "%|" not in ran.stderr, "no bars where nobody looks"
