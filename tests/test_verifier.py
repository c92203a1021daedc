"""The verifier: what is taken for one, how it is named in the output, and where its tables lie."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from spec_convert import load_draft, validate
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


TEXT = {"hidden_size": 4, "vocab_size": 6, "num_hidden_layers": 3, "max_position_embeddings": 128}
HEADLESS = None
# As each family saves it: config.json around the language model's facts, its embedding, its head.
MULTIMODAL = {
    "Llama-4": ({"text_config": TEXT}, "language_model.model.embed_tokens.weight", "language_model.lm_head.weight"),
    "Gemma-3": ({"text_config": TEXT}, "language_model.model.embed_tokens.weight", HEADLESS),
    "Qwen2.5-VL": ({"text_config": TEXT}, "model.embed_tokens.weight", "lm_head.weight"),
    "Qwen3-VL": ({"text_config": TEXT}, "model.language_model.embed_tokens.weight", "lm_head.weight"),
    "Qwen3-VL, tied": (
        {"text_config": TEXT | {"tie_word_embeddings": True}, "tie_word_embeddings": False},
        "model.language_model.embed_tokens.weight",
        HEADLESS,
    ),
    "Mistral-3": ({"text_config": TEXT}, "language_model.model.embed_tokens.weight", "language_model.lm_head.weight"),
    "SmolVLM": ({"text_config": TEXT}, "model.text_model.embed_tokens.weight", "lm_head.weight"),
    "InternVL": ({"llm_config": TEXT}, "language_model.model.embed_tokens.weight", "language_model.lm_head.weight"),
    "DeepSeek-VL2": (
        {"language_config": TEXT}, "language_model.model.embed_tokens.weight", "language_model.lm_head.weight"
    ),
    "Qwen-Omni": (
        {"thinker_config": {"text_config": TEXT}}, "thinker.model.embed_tokens.weight", "thinker.lm_head.weight"
    ),
}  # fmt: skip


def multimodal(folder: Path, kind: str, *gone: str) -> Path:
    """That family in small, without these facts of its language model. Around them stand those of its eyes."""
    config, embedding, head = MULTIMODAL[kind]
    kept = json.loads(json.dumps(config), object_hook=lambda part: {k: v for k, v in part.items() if k not in gone})
    eyes = {"hidden_size": 99, "num_hidden_layers": 99}
    (folder / "config.json").write_text(json.dumps(kept | {"vision_config": eyes, "architectures": [kind]}))
    tables = {embedding: torch.zeros(6, 4)} | ({head: torch.ones(6, 4)} if head else {})
    save_file(tables | {"vision.patches.weight": torch.zeros(3, 9)}, folder / "model.safetensors")
    return folder


@pytest.mark.parametrize("kind", MULTIMODAL)
def test_facts_and_tables_are_the_language_models(tmp_path: Path, kind: str) -> None:
    verifier = open_verifier(multimodal(tmp_path, kind))
    assert (verifier.hidden_size, verifier.vocab_size, verifier.num_hidden_layers) == (4, 6, 3)
    assert verifier.text_config["max_position_embeddings"] == 128
    _, embedding, head = MULTIMODAL[kind]
    assert (verifier.embedding_name, verifier.head_name) == (embedding, head or embedding)


def test_sizes_that_a_nested_config_leaves_out_are_those_of_the_embedding(tmp_path: Path) -> None:
    """Gemma-3 does not write what is the default of its class."""
    verifier = open_verifier(multimodal(tmp_path, "Gemma-3", "vocab_size", "hidden_size"))
    assert (verifier.hidden_size, verifier.vocab_size) == (4, 6)


def test_a_number_of_layers_that_nothing_tells_is_not_made_up(tmp_path: Path) -> None:
    with pytest.raises(Unreadable, match="has no `num_hidden_layers`"):
        _ = open_verifier(multimodal(tmp_path, "Gemma-3", "num_hidden_layers")).num_hidden_layers


@pytest.mark.parametrize("kind", MULTIMODAL)
def test_a_draft_of_a_multimodal_verifier_is_converted_and_valid(kind: str, eagle3: Any, tmp_path: Path) -> None:
    """Its layer ids, its vocabulary and its positions come from the language model, its tables from where they lie."""
    draft = eagle3()
    config, embedding, head = MULTIMODAL[kind]
    text = TEXT | {"hidden_size": 16, "vocab_size": 32, "num_hidden_layers": 8, "max_position_embeddings": 4096}
    nested = json.loads(json.dumps(config), object_hook=lambda part: text if "vocab_size" in part else part)
    folder = tmp_path / "multimodal"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(nested | {"architectures": [kind]}))
    tables = {embedding: torch.randn(32, 16)} | ({head: torch.randn(32, 16)} if head else {})
    save_file(tables, folder / "model.safetensors")
    done = draft.convert(verifier=folder)
    assert done.config["eagle_aux_hidden_state_layer_ids"] == [2, 4, 5]
    assert done.layer["max_position_embeddings"] == 4096
    (checked,) = validate(done.output, verifier=folder, level="forward").checked
    assert [finding for finding in checked.findings if finding.level != "note"] == []
    assert load_draft(done.output).head.shape[1] == 16
