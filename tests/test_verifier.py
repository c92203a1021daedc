"""The verifier: what is taken for one, how it is named in the output, and where its tables lie."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from spec_convert.errors import Unreadable, UsageError
from spec_convert.verifier import open_verifier

Make = Callable[..., Path]


@pytest.fixture
def model(tmp_path: Path) -> Make:
    """`model(config…, head=False)`: a folder with an embedding and, unless told otherwise, a head."""

    def make(*, head: bool = True, **config: Any) -> Path:
        (tmp_path / "config.json").write_text(json.dumps({"hidden_size": 4, "vocab_size": 6} | config))
        tables = {"model.embed_tokens.weight": torch.zeros(6, 4)} | (
            {"lm_head.weight": torch.ones(6, 4)} if head else {}
        )
        save_file(tables, tmp_path / "model.safetensors")
        return tmp_path

    return make


@pytest.mark.parametrize("config", [{"tie_word_embeddings": True}, {}, {"text_config": {"hidden_size": 4}}])
def test_without_a_head_the_embedding_is_the_head_where_nothing_denies_it(model: Make, config: dict[str, Any]) -> None:
    assert open_verifier(model(head=False, **config)).head_name == "model.embed_tokens.weight"


def test_a_head_of_its_own_is_the_head_even_in_a_config_that_says_tied(model: Make) -> None:
    assert open_verifier(model(tie_word_embeddings=True)).head_name == "lm_head.weight"


def test_a_missing_head_that_is_not_the_embedding_is_said(model: Make) -> None:
    with pytest.raises(Unreadable, match="no output head"):
        _ = open_verifier(model(head=False, tie_word_embeddings=False)).head_name


def test_a_local_verifier_is_named_by_its_whole_path(model: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = model()
    monkeypatch.chdir(folder.parent)
    assert open_verifier(folder.name).name == str(folder)


def test_a_file_is_no_verifier(model: Make) -> None:
    with pytest.raises(Unreadable, match="is a file"):
        open_verifier(model() / "model.safetensors")


@pytest.mark.parametrize("mark", ["draft_vocab_size", "speculators_model_type", "eagle_config"])
def test_a_draft_is_no_verifier(model: Make, mark: str) -> None:
    with pytest.raises(Unreadable, match=f"itself a draft.*{mark}"):
        open_verifier(model(**{mark: 3}))


def test_the_draft_is_not_its_own_verifier(eagle: Any) -> None:
    draft = eagle()
    draft.verifier = draft.write()
    with pytest.raises(UsageError, match="one folder"):
        draft.convert()
