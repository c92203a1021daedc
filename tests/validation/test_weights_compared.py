"""The draft's embedding and head against the verifier's, what it borrows, and the verifier's tokenizer."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from spec_convert.findings import Finding

from ..hub.conftest import hub  # noqa: F401  the Hub of tests/hub
from ..hub.server import FakeHub
from ..tiny import Tiny
from .test_weights import SOME, findings_of

Make = Callable[..., Any]
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
COPY, OWN = "embedding-is-the-verifiers", "embedding-of-its-own"


@pytest.fixture
def tables(verifier: Path) -> dict[str, torch.Tensor]:
    return load_file(verifier / "model.safetensors")


def with_tables(verifier: Path, tables: dict[str, torch.Tensor]) -> Path:
    save_file(tables, verifier / "model.safetensors")
    return verifier


def compared(draft: Tiny) -> dict[str, Finding]:
    return findings_of(draft.write(), draft.verifier)


def with_embedding(draft: Tiny, table: torch.Tensor) -> Tiny:
    draft.tensors["embed_tokens.weight"] = table
    return draft


def test_a_draft_that_borrows_both_tables_has_nothing_to_be_told(eagle: Make) -> None:
    assert compared(eagle()) == {}


@pytest.mark.parametrize("theirs", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("ours", [torch.float32, torch.float16, torch.bfloat16])
def test_a_copy_is_a_copy_in_any_dtype(
    eagle: Make, tables: Any, verifier: Path, ours: torch.dtype, theirs: torch.dtype
) -> None:
    tables[EMBEDDING][0, :3] = torch.tensor([1e-6, -3e-8, 0.0])  # what float16 keeps badly, and not at all
    with_tables(verifier, {name: table.to(theirs) for name, table in tables.items()})
    draft = with_embedding(eagle(), tables[EMBEDDING].to(theirs).to(ours))
    assert list(compared(draft)) == [COPY]
    nudged = draft.tensors["embed_tokens.weight"]
    nudged[-1, -1] *= 1.03125
    found = compared(draft)
    assert list(found) == [OWN]
    assert "in row 31 first" in found[OWN].message


def test_what_the_verifier_was_rounded_from_is_a_copy_too(eagle: Make, tables: Any, verifier: Path) -> None:
    with_tables(verifier, {name: table.bfloat16() for name, table in tables.items()})
    draft = with_embedding(eagle(), tables[EMBEDDING])
    assert list(compared(draft)) == [COPY]
    draft.tensors["embed_tokens.weight"][0, 0] *= 1.03125
    assert list(compared(draft)) == [OWN]


def test_one_bit_of_the_same_dtype_is_a_difference(eagle: Make, tables: Any) -> None:
    table = tables[EMBEDDING].clone()
    table.view(torch.int32)[7, 3] ^= 1
    assert "in row 7 first" in compared(with_embedding(eagle(), table))[OWN].message


def test_a_number_that_the_other_dtype_cannot_hold_is_a_difference(eagle: Make, tables: Any, verifier: Path) -> None:
    tables[EMBEDDING][3, 3] = 1e6
    with_tables(verifier, tables)
    half = tables[EMBEDDING].clamp(max=6e4).half()
    assert list(compared(with_embedding(eagle(), half))) == [OWN]


def test_an_embedding_of_another_width_is_its_own_without_a_word(eagle3: Make, make_verifier: Make) -> None:
    draft = with_embedding(eagle3(target_hidden_size=16), torch.randn(32, 16))
    assert findings_of(draft.write(), make_verifier("wide", hidden_size=24)) == {}


def test_the_rows_of_blocks_stand_side_by_side(eagle: Make, tables: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spec_convert.validation.comparing.CHUNK", 16 * 4 * 5)  # five rows a block, and two in the last
    assert list(compared(with_embedding(eagle(), tables[EMBEDDING].bfloat16()))) == [COPY]
    assert "in row 0 first" in compared(with_embedding(eagle(), tables[EMBEDDING].flip(0)))[OWN].message


def cut_head(draft: Tiny, vocabulary_of: Make, head: torch.Tensor) -> Tiny:
    draft.tensors |= vocabulary_of(SOME) | {"lm_head.weight": head.contiguous()}
    return draft


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_head_of_the_first_rows_is_found(eagle3: Make, vocabulary_of: Make, tables: Any, dtype: torch.dtype) -> None:
    draft = cut_head(eagle3(), vocabulary_of, tables[HEAD][:20].to(dtype))
    assert list(compared(draft)) == ["head-of-other-tokens"]


def test_a_head_of_the_right_rows_or_a_trained_one_is_fine(eagle3: Make, vocabulary_of: Make, tables: Any) -> None:
    assert compared(cut_head(eagle3(), vocabulary_of, tables[HEAD][SOME])) == {}
    assert compared(cut_head(eagle3(), vocabulary_of, torch.randn(20, 16))) == {}


def test_the_first_rows_are_right_when_the_vocabulary_is_the_first_tokens(
    eagle3: Make, vocabulary_of: Make, tables: Any
) -> None:
    draft = eagle3()
    draft.tensors |= vocabulary_of(range(20)) | {"lm_head.weight": tables[HEAD][:20].clone()}
    assert compared(draft) == {}


def test_tokens_that_share_a_row_cannot_be_told_apart(
    eagle3: Make, vocabulary_of: Make, tables: Any, verifier: Path
) -> None:
    tables[HEAD][3:] = tables[HEAD][3]
    with_tables(verifier, tables)
    draft = cut_head(eagle3(), vocabulary_of, tables[HEAD][SOME])
    assert "head-of-other-tokens" not in compared(draft)


def test_a_tied_verifier_is_compared_by_its_embedding(
    eagle3: Make, vocabulary_of: Make, tables: Any, make_verifier: Make
) -> None:
    tied = make_verifier("tied", tie_word_embeddings=True)
    save_file({EMBEDDING: tables[EMBEDDING]}, tied / "model.safetensors")
    draft = cut_head(eagle3(), vocabulary_of, tables[EMBEDDING][:20])
    assert list(findings_of(draft.write(), tied)) == ["head-of-other-tokens"]


@pytest.mark.parametrize("lost", [EMBEDDING, HEAD])
def test_what_is_borrowed_must_be_there(eagle: Make, tables: Any, verifier: Path, lost: str) -> None:
    config = json.loads((verifier / "config.json").read_text()) | {"tie_word_embeddings": False}
    (verifier / "config.json").write_text(json.dumps(config))
    with_tables(verifier, {name: table for name, table in tables.items() if name != lost})
    assert list(compared(eagle())) == ["verifier-unusable"]


@pytest.mark.parametrize("cut", [EMBEDDING, HEAD])
def test_what_is_borrowed_must_fit_the_verifiers_own_config(eagle: Make, tables: Any, verifier: Path, cut: str) -> None:
    with_tables(verifier, tables | {cut: tables[cut][:-1].clone()})
    found = compared(eagle())
    assert list(found) == ["verifier-unusable"]
    assert "(31, 16)" in found["verifier-unusable"].message


def test_a_verifier_without_weights_is_told_once_and_only_to_those_who_borrow(
    eagle: Make, mlp: Make, verifier: Path
) -> None:
    (verifier / "model.safetensors").unlink()
    assert list(compared(eagle())) == ["no-weights"]
    assert compared(mlp()) == {}


def test_an_embedding_that_is_not_borrowed_may_be_missing(
    eagle3: Make, vocabulary_of: Make, tables: Any, verifier: Path
) -> None:
    with_tables(verifier, {HEAD: tables[HEAD]})
    draft = with_embedding(eagle3(), tables[EMBEDDING])
    assert compared(draft) == {}


def tokenizer(words: int, *added: int, kind: str = "BPE") -> dict[str, Any]:
    vocabulary: Any = {f"w{number}": number for number in range(words)}
    if kind == "Unigram":
        vocabulary = [[word, -1.5] for word in vocabulary]
    tokens = [{"id": number, "content": f"<{number}>", "special": True} for number in added]
    return {"version": "1.0", "added_tokens": tokens, "model": {"type": kind, "vocab": vocabulary, "merges": []}}


def told(draft: Tiny, **files: Any) -> list[str]:
    """The rules that these files of the verifier's tokenizer break; `__` stands for the dot before json."""
    for name, content in files.items():
        text = content if isinstance(content, str) else json.dumps(content)
        (draft.verifier / name.replace("__", ".")).write_text(text)
    return list(compared(draft))


@pytest.mark.parametrize("kind", ["BPE", "Unigram"])
@pytest.mark.parametrize(("words", "rules"), [(20, []), (32, []), (33, ["tokenizer-too-large"])])
def test_a_tokenizer_may_be_smaller_than_the_vocabulary(eagle: Make, kind: str, words: int, rules: list[str]) -> None:
    assert told(eagle(), tokenizer__json=tokenizer(words, kind=kind)) == rules


def test_added_tokens_fill_the_vocabulary_or_go_beyond_it(eagle: Make) -> None:
    assert told(eagle(), tokenizer__json=tokenizer(30, 30, 31)) == []
    assert told(eagle(), tokenizer__json=tokenizer(30, 31, 32)) == ["added-tokens-too-large"]


def test_a_token_that_is_listed_in_both_places_is_an_added_one(eagle: Make) -> None:
    assert told(eagle(), tokenizer__json=tokenizer(33, 32)) == ["added-tokens-too-large"]


def test_the_older_files_count_as_well(eagle: Make) -> None:
    words = tokenizer(33)["model"]["vocab"]
    assert told(eagle(), vocab__json=words) == ["tokenizer-too-large"]
    assert told(eagle(), vocab__json=words, added_tokens__json={"w32": 32}) == ["added-tokens-too-large"]
    decoder = {"added_tokens_decoder": {"32": {"content": "<pad>"}}}
    assert told(eagle(), vocab__json={"a": 0}, added_tokens__json={}, tokenizer_config__json=decoder) == [
        "added-tokens-too-large"
    ]


@pytest.mark.parametrize("damage", ["{", "[]", '{"model": {}}', '{"model": {"vocab": {"a": "b"}}}'])
def test_a_damaged_tokenizer_is_a_finding_about_the_verifier(eagle: Make, damage: str) -> None:
    assert told(eagle(), tokenizer__json=damage) == ["verifier-unusable"]


def test_draft_and_verifier_may_lie_on_the_hub(hub: FakeHub, eagle: Make, verifier: Path, tables: Any) -> None:  # noqa: F811
    (verifier / "tokenizer.json").write_text(json.dumps(tokenizer(33)))
    hub.publish("org/verifier", verifier)
    hub.publish("org/draft", with_embedding(eagle(), tables[EMBEDDING]).write())
    found = findings_of(Path("org/draft"), Path("org/verifier"))
    assert sorted(found) == [COPY, "tokenizer-too-large"]
