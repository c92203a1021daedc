"""`spec-convert prepare` again: what is written, what a kill leaves, what the cache knows, the Hub."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from spec_convert.errors import UsageError
from spec_convert.training.preparation import outcomes, preparing
from spec_convert.training.preparation.accounts import Accounts
from spec_convert.training.preparation.preparing import prepare
from spec_convert.training.store.reading import open_store

from ...hub.server import FakeHub
from ..small import CHATML, byte_tokenizer
from .rows import (
    ONE,
    UNANSWERED,
    answers,
    files,
    many,
    use_cache,
    with_tokenizer,
)

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
