"""The draft's vocabulary is the answers' most frequent tokens, in the form in which drafts and vLLM hold it."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from spec_convert import convert, load_draft
from spec_convert.cli import run
from spec_convert.errors import UsageError
from spec_convert.training.store.reading import open_store
from spec_convert.training.store.sample import Sample
from spec_convert.training.vocabulary.making import make_vocabulary
from spec_convert.training.vocabulary.mapping import coverage_at, draft_vocabulary, token_counts

from .small import SPECIAL, VOCABULARY, byte_tokenizer, random_samples, write_prepared

EAGLE3 = Path(__file__).parents[1] / "goldens" / "fixtures" / "eagle3_safeai"  # 96 of 512 tokens
END = 257  # `<|im_end|>` of the small verifier


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory, verifier: Path) -> Path:
    samples = [
        Sample(sample.index, torch.cat([sample.input_ids, torch.tensor([END])]), torch.cat([sample.loss_mask, ends]))
        for sample in random_samples([40, 1, 300, 77], seed=5)
        for ends in [torch.tensor([True])]
    ]
    folder = tmp_path_factory.mktemp("data") / "prepared"
    write_prepared(folder, verifier, samples, per_shard=3)
    return folder


def by_hand(samples: Any) -> Counter[int]:
    return Counter(
        token
        for sample in samples
        for token, said in zip(sample.input_ids.tolist(), sample.loss_mask.tolist(), strict=True)
        if said
    )


def most_frequent(counts: Counter[int], size: int) -> list[int]:
    return sorted(sorted(range(VOCABULARY), key=lambda token: (-counts[token], token))[:size])


def test_only_tokens_of_answers_are_counted(prepared: Path) -> None:
    store = open_store(prepared)
    counts = token_counts(store, VOCABULARY)
    assert {token: int(counts[token]) for token in np.flatnonzero(counts)} == by_hand(store)


@given(st.lists(st.integers(0, 6), min_size=2, max_size=40).filter(any), st.data())
def test_the_mapping_is_the_most_frequent_tokens_with_ties_to_the_smaller_id(counts: list[int], data: Any) -> None:
    size = data.draw(st.integers(1, len(counts) - 1))
    made = draft_vocabulary(np.array(counts), size)
    wanted = sorted(sorted(range(len(counts)), key=lambda token: (-counts[token], token))[:size])
    assert np.array_equal(np.flatnonzero(made.t2d), made.d2t + np.arange(size))
    assert np.flatnonzero(made.t2d).tolist() == wanted
    assert (made.d2t.dtype, made.t2d.dtype) == (np.int64, np.bool_)
    assert made.filled == sum(counts[token] == 0 for token in wanted)
    assert made.coverage == coverage_at(np.array(counts), size) == sum(counts[token] for token in wanted) / sum(counts)


@pytest.mark.parametrize(
    ("size", "says"), [(8, "is the verifier's whole one"), (9, "9 does not fit into the verifier's of 8")]
)
def test_a_vocabulary_that_is_no_smaller_than_the_verifiers_is_refused(size: int, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        draft_vocabulary(np.ones(8, np.int64), size)


def test_answers_without_tokens_are_refused() -> None:
    with pytest.raises(UsageError, match="no answer holds a token"):
        draft_vocabulary(np.zeros(8, np.int64), 4)


def test_a_token_beyond_the_vocabulary_is_refused(prepared: Path) -> None:
    with pytest.raises(UsageError, match="holds token 257, and the verifier has a vocabulary of 257"):
        token_counts(open_store(prepared), 257)


def test_a_draft_with_this_mapping_converts_and_maps_its_tokens_back(prepared: Path, tmp_path: Path) -> None:
    make_vocabulary(prepared, tmp_path / "vocab", draft_vocab_size=96)
    shutil.copytree(EAGLE3 / "checkpoint", tmp_path / "draft")
    weights = torch.load(tmp_path / "draft" / "pytorch_model.bin", weights_only=True)
    for name in ("d2t", "t2d"):
        weights[name] = torch.from_numpy(np.load(tmp_path / "vocab" / f"{name}.npy"))
    torch.save(weights, tmp_path / "draft" / "pytorch_model.bin")
    convert(tmp_path / "draft", tmp_path / "unified", verifier=EAGLE3 / "verifier")
    draft = load_draft(tmp_path / "unified", verifier=EAGLE3 / "verifier")
    wanted = most_frequent(by_hand(open_store(prepared)), 96)
    everywhere = draft.to_target_vocabulary(torch.arange(96.0))
    assert everywhere[wanted].tolist() == list(range(96))
    assert int(everywhere.isfinite().sum()) == 96


def test_the_files_say_whose_they_are_and_how_much_they_cover(prepared: Path, tmp_path: Path) -> None:
    made = make_vocabulary(prepared, tmp_path / "vocab", draft_vocab_size=32)
    counts = by_hand(open_store(prepared))
    facts, said = made.facts, json.loads((tmp_path / "vocab" / "vocab.json").read_text())
    assert json.loads(facts.model_dump_json()) == said
    assert facts.tokenizer == open_store(prepared).tokenizer
    assert (facts.answer_tokens, facts.distinct_tokens) == (sum(counts.values()), len(counts))
    assert [at.size for at in facts.coverage] == [16, 32, 64]
    shares = [sum(counts[token] for token in most_frequent(counts, size)) for size in (16, 32, 64)]
    assert [at.share for at in facts.coverage] == pytest.approx([share / sum(counts.values()) for share in shares])
    assert (facts.end_tokens, facts.end_tokens_kept) == ((END,), (END,))
    assert torch.load(tmp_path / "vocab" / "token_freq.pt", weights_only=True) == counts


def test_our_frequencies_make_the_same_vocabulary_as_the_data(prepared: Path, tmp_path: Path) -> None:
    one = make_vocabulary(prepared, tmp_path / "one", draft_vocab_size=32)
    two = make_vocabulary(tmp_path / "one" / "token_freq.pt", tmp_path / "two", draft_vocab_size=32)
    assert one.facts == two.facts


def test_the_same_vocabulary_is_there_already_and_another_one_is_kept(prepared: Path, tmp_path: Path) -> None:
    output = tmp_path / "vocab"
    assert make_vocabulary(prepared, output, draft_vocab_size=32).written
    assert not make_vocabulary(prepared, output, draft_vocab_size=32).written
    with pytest.raises(UsageError, match="holds another vocabulary, of 32 tokens"):
        make_vocabulary(prepared, output, draft_vocab_size=33)
    assert make_vocabulary(prepared, output, draft_vocab_size=33, force=True).written
    assert np.load(output / "d2t.npy").shape == (33,)


def test_a_vocabulary_whose_files_have_changed_is_not_there(prepared: Path, tmp_path: Path) -> None:
    make_vocabulary(prepared, tmp_path / "vocab", draft_vocab_size=32)
    np.save(tmp_path / "vocab" / "d2t.npy", np.arange(32))
    with pytest.raises(UsageError, match="not as they were written"):
        make_vocabulary(prepared, tmp_path / "vocab", draft_vocab_size=32)


def test_an_empty_folder_is_filled_where_it_is(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert make_vocabulary(prepared, Path(), draft_vocab_size=32).written
    assert sorted(os.listdir()) == ["d2t.npy", "t2d.npy", "token_freq.pt", "vocab.json"]
    assert not make_vocabulary(prepared, Path(), draft_vocab_size=32).written


@pytest.mark.parametrize("force", [False, True])
def test_a_folder_of_other_things_is_left_alone(prepared: Path, tmp_path: Path, force: bool) -> None:
    with pytest.raises(UsageError, match=r"holds manifest\.json"):
        make_vocabulary(prepared, prepared, draft_vocab_size=32, force=force)


def test_a_mapping_of_somebody_elses_is_only_replaced_by_force(prepared: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "d2t.npy", np.arange(3))
    with pytest.raises(UsageError, match=r"without a vocab\.json"):
        make_vocabulary(prepared, tmp_path, draft_vocab_size=32)
    assert make_vocabulary(prepared, tmp_path, draft_vocab_size=32, force=True).written


def test_another_verifier_or_size_than_the_datas_is_refused(prepared: Path, verifier: Path, tmp_path: Path) -> None:
    def refused(says: str, **flags: Any) -> None:
        with pytest.raises(UsageError, match=says):
            make_vocabulary(prepared, tmp_path / "vocab", draft_vocab_size=32, **flags)

    other, wider = tmp_path / "other", tmp_path / "wider"
    for folder in (other, wider):
        shutil.copytree(verifier, folder)
    byte_tokenizer((*SPECIAL, "<|one more|>")).save_pretrained(other)
    config = json.loads((wider / "config.json").read_text())
    (wider / "config.json").write_text(json.dumps({**config, "vocab_size": 520}))
    refused("holds token ids of .*/verifier .*, not of .*/other ", verifier=str(other))
    refused("was made for a vocabulary of 512, not of 520", verifier=str(wider))
    refused("was made for a vocabulary of 512, not of 500", target_vocab_size=500)
    make_vocabulary(
        prepared, tmp_path / "vocab", draft_vocab_size=32, verifier=str(verifier), target_vocab_size=VOCABULARY
    )


def test_frequencies_of_others_need_the_size_of_the_vocabulary(tmp_path: Path, verifier: Path) -> None:
    file = tmp_path / "token_freq.pt"
    torch.save({5: 3, 300: 9, 7: 3}, file)
    with pytest.raises(UsageError, match="does not say how large"):
        make_vocabulary(file, tmp_path / "vocab", draft_vocab_size=2)
    with pytest.raises(UsageError, match="holds token 300, and the verifier has a vocabulary of 300"):
        make_vocabulary(file, tmp_path / "vocab", draft_vocab_size=2, target_vocab_size=300)
    made = make_vocabulary(file, tmp_path / "vocab", draft_vocab_size=2, target_vocab_size=301)
    assert np.load(tmp_path / "vocab" / "d2t.npy").tolist() == [5, 299]
    assert (made.facts.tokenizer, made.facts.end_tokens) == (None, None)
    named = make_vocabulary(file, tmp_path / "named", draft_vocab_size=2, verifier=str(verifier))
    assert named.facts.tokenizer is not None
    assert (named.facts.target_vocab_size, named.facts.end_tokens_kept) == (VOCABULARY, ())


@pytest.mark.parametrize(
    ("held", "says"),
    [
        ([1, 2], "holds no dict of token ids"),
        ({1: 2.5}, "holds no dict of token ids"),
        ({1: -1}, "token 1 occurs -1 times"),
        ({-1: 1}, "holds token -1"),
        (Path("/"), "cannot be read as plain tensors"),
    ],
)
def test_what_is_no_frequency_file_is_refused(tmp_path: Path, held: Any, says: str) -> None:
    torch.save(held, tmp_path / "token_freq.pt")
    with pytest.raises(UsageError, match=says):
        make_vocabulary(tmp_path / "token_freq.pt", tmp_path / "vocab", draft_vocab_size=2, target_vocab_size=9)


def test_frequencies_beside_a_vocab_json_of_others_are_refused(prepared: Path, tmp_path: Path) -> None:
    make_vocabulary(prepared, tmp_path / "one", draft_vocab_size=32)
    torch.save({1: 1}, tmp_path / "one" / "token_freq.pt")
    with pytest.raises(UsageError, match="is not the file of which vocab"):
        make_vocabulary(tmp_path / "one" / "token_freq.pt", tmp_path / "two", draft_vocab_size=32)


def test_the_command_says_what_was_filled_and_that_no_end_token_is_kept(
    verifier: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_prepared(tmp_path / "data", verifier, random_samples([6]))
    code = run(["vocab", str(tmp_path / "data"), str(tmp_path / "vocab"), "--draft-vocab-size", "8", "--json"])
    said = capsys.readouterr()
    facts = json.loads(said.out)
    assert (code, facts["written"], facts["filled"], facts["end_tokens_kept"]) == (0, True, 5, [])
    assert (
        "warning: answers hold only 3 distinct tokens: 5 of the draft's are the smallest of the other ids" in said.err
    )
    assert f"none of the verifier's end tokens ({END}) is in it" in said.err


def test_the_command_shows_the_coverage(prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["vocab", str(prepared), str(tmp_path / "vocab"), "--draft-vocab-size", "200"]
    assert run(arguments) == 0
    shown = capsys.readouterr().out
    assert "vocabulary  200 of 512 tokens\n" in shown
    assert "400           100.0000%" in shown
    assert run(arguments) == 0
    assert f"{tmp_path / 'vocab'}: it is there already" in capsys.readouterr().out


def test_a_full_vocabulary_ends_the_command_with_one_line(
    prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["vocab", str(prepared), str(tmp_path / "vocab"), "--draft-vocab-size", "512"]) == 2
    assert "whole one, which needs no mapping" in capsys.readouterr().err
    assert not (tmp_path / "vocab").exists()


@pytest.mark.parametrize("said", ["{", "[]", '{"eos_token_id": [0, 257]}'])
def test_end_tokens_are_those_of_both_configs(prepared: Path, verifier: Path, tmp_path: Path, said: str) -> None:
    shutil.copytree(verifier, tmp_path / "copy")
    (tmp_path / "copy" / "generation_config.json").write_text(said)

    def make() -> tuple[int, ...] | None:
        output = tmp_path / "vocab"
        return make_vocabulary(prepared, output, draft_vocab_size=32, verifier=str(tmp_path / "copy")).facts.end_tokens

    if said.startswith('{"'):
        assert make() == (0, END)
    else:
        with pytest.raises(UsageError, match=r"generation_config\.json cannot be read"):
            make()
