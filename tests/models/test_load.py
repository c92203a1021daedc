"""Loading a unified directory, with what it shares with its verifier."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from spec_convert.checkpoint import Checkpoint
from spec_convert.models.draft import Config, Draft, DraftError, VerifierTensors
from spec_convert.models.load import load_draft
from spec_convert.unified import Eagle3Config, EagleConfig, EagleMlpConfig

Drafts = Callable[[Config], Draft]
IDS = torch.tensor([[3, 1, 4, 1, 5]])
STATES = torch.linspace(-2, 1, 240).reshape(1, 5, 48)


def write(folder: Path, config: dict[str, Any], tensors: dict[str, Tensor]) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    save_file({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, folder / "model.safetensors")
    return folder


@pytest.fixture
def base(tmp_path: Path, verifier: VerifierTensors) -> Path:
    assert verifier.embed_tokens is not None
    assert verifier.lm_head is not None
    tensors = {"model.embed_tokens.weight": verifier.embed_tokens, "lm_head.weight": verifier.lm_head}
    return write(tmp_path / "base", {"hidden_size": 16, "vocab_size": 32}, tensors)


@pytest.fixture
def eagle3(tmp_path: Path, eagle3_config: Callable[..., Eagle3Config], draft_of: Drafts) -> tuple[Path, Draft]:
    config = eagle3_config()
    draft = draft_of(config)
    return write(tmp_path / "draft", config.model_dump(), draft.state_dict()), draft


def test_a_loaded_draft_computes_what_was_saved(eagle3: tuple[Path, Draft], base: Path) -> None:
    folder, saved = eagle3
    assert torch.equal(load_draft(folder, base)(IDS, STATES).logits, saved(IDS, STATES).logits)


def test_a_loaded_draft_is_in_eval_mode(eagle3: tuple[Path, Draft], base: Path) -> None:
    assert not load_draft(eagle3[0], base).training


def test_half_precision_files_are_computed_in_float32(
    tmp_path: Path, eagle3_config: Callable[..., Eagle3Config], draft_of: Drafts, base: Path
) -> None:
    halves = draft_of(eagle3_config()).to(torch.bfloat16).state_dict()
    loaded = load_draft(write(tmp_path / "draft", eagle3_config().model_dump(), halves), base).state_dict()
    assert all(torch.equal(loaded[name], value.to(loaded[name].dtype)) for name, value in halves.items())
    assert {value.dtype for value in loaded.values()} == {torch.float32, torch.int64, torch.bool}


def test_another_dtype_can_be_asked_for(eagle3: tuple[Path, Draft], base: Path) -> None:
    draft = load_draft(eagle3[0], base, dtype=torch.bfloat16)
    assert draft(IDS, STATES.bfloat16()).logits.dtype == torch.bfloat16


def test_without_a_verifier_the_one_of_the_config_is_opened(
    tmp_path: Path, eagle_config: Callable[..., EagleConfig], draft_of: Drafts, base: Path
) -> None:
    draft = draft_of(eagle_config())
    config = eagle_config().model_dump()
    config["speculators_config"]["verifier"]["name_or_path"] = str(base)
    loaded = load_draft(write(tmp_path / "draft", config, draft.state_dict()))
    assert torch.equal(loaded(IDS, STATES[..., :16]).logits, draft(IDS, STATES[..., :16]).logits)


def test_a_tied_verifier_lends_its_embedding_as_its_head(
    tmp_path: Path, eagle_config: Callable[..., EagleConfig], draft_of: Drafts, verifier: VerifierTensors
) -> None:
    table = verifier.embed_tokens
    assert table is not None
    base = write(tmp_path / "tied", {"tie_word_embeddings": True}, {"model.embed_tokens.weight": table})
    folder = write(tmp_path / "draft", eagle_config().model_dump(), draft_of(eagle_config()).state_dict())
    assert torch.equal(load_draft(folder, base).lm_head.weight, table)


def test_of_the_verifier_only_what_is_shared_is_read(
    eagle3: tuple[Path, Draft], base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, read = set(), Checkpoint.read

    def listen(checkpoint: Checkpoint, name: str) -> Any:
        seen.add((Path(checkpoint.source).name, name))
        return read(checkpoint, name)

    monkeypatch.setattr(Checkpoint, "read", listen)
    load_draft(eagle3[0], base)
    assert {name for source, name in seen if source == "base"} == {"model.embed_tokens.weight"}


def test_a_draft_that_borrows_nothing_never_opens_a_verifier(
    tmp_path: Path, mlp_config: Callable[..., EagleMlpConfig], draft_of: Drafts
) -> None:
    draft = draft_of(mlp_config())
    folder = write(tmp_path / "draft", mlp_config().model_dump(), draft.state_dict())
    assert torch.equal(load_draft(folder)(IDS, STATES).logits, draft(IDS, STATES).logits)


def test_a_config_that_is_not_unified_is_refused_with_its_reason(tmp_path: Path) -> None:
    folder = write(tmp_path / "draft", {"speculators_model_type": "eagle3"}, {"fc.weight": torch.zeros(1)})
    with pytest.raises(DraftError, match="norm_before_residual: Field required"):
        load_draft(folder)


def test_a_native_checkpoint_is_sent_to_convert(tmp_path: Path) -> None:
    folder = write(tmp_path / "draft", {"model_type": "llama"}, {"fc.weight": torch.zeros(1)})
    with pytest.raises(DraftError) as refused:
        load_draft(folder)
    assert "spec-convert convert" in refused.value.hint


def test_a_refusal_says_which_folder(tmp_path: Path, mlp_config: Callable[..., EagleMlpConfig]) -> None:
    folder = write(tmp_path / "draft", mlp_config().model_dump(), {"spare": torch.zeros(1)})
    with pytest.raises(DraftError, match=f"{folder}: .*spare belongs to nothing"):
        load_draft(folder)


def test_eight_bit_weights_are_refused(tmp_path: Path, mlp_config: Callable[..., EagleMlpConfig]) -> None:
    tensors = {"lm_head.weight": torch.zeros(32, 16, dtype=torch.float8_e4m3fn)}
    with pytest.raises(DraftError, match=r"lm_head.weight is F8_E4M3"):
        load_draft(write(tmp_path / "draft", mlp_config().model_dump(), tensors))
