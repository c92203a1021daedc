"""TorchSpec's EAGLE-3: its marks, heads that its exporter cuts wrongly, embeddings and ids that it does not record."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import spec_convert
from spec_convert import detect

Make = Callable[..., Any]
KEY = "eagle_aux_hidden_state_layer_ids"
OUTPUT = {"aux_layer_convention": "output"}


@pytest.fixture
def torchspec(specforge: Make) -> Make:
    """As its exporter writes them: its version in config.json, always with an embedding."""

    def make(**changes: Any) -> Any:
        draft = specforge(**{"_torchspec_version": "0.1.0"} | changes)
        draft.tensors["embed_tokens.weight"] = torch.ones(32, 16)
        return draft

    return make


@pytest.mark.parametrize("prefix", ["midlayer.", "layers.0."])
def test_its_mark_in_the_config_is_known(torchspec: Make, prefix: str) -> None:
    assert torchspec(prefix=prefix).convert(**OUTPUT, validate=True).conversion.format == "eagle3-torchspec"


def test_its_mark_in_the_weights_is_known(specforge: Make) -> None:
    draft = specforge()
    folder: Path = draft.write()
    save_file(draft.tensors, folder / "model.safetensors", metadata={"torchspec_version": "0.1.0"})
    assert detect(folder).format == "eagle3-torchspec"


def test_an_embedding_of_the_verifiers_width_is_left_to_the_verifier(torchspec: Make) -> None:
    converted = torchspec().convert(**OUTPUT)
    assert "embed_tokens.weight" not in converted.tensors
    assert "random" in converted.dropped["embed_tokens.weight"]


def test_an_embedding_of_another_width_is_the_drafts_own(torchspec: Make, make_verifier: Make) -> None:
    draft = torchspec(target_hidden_size=24)
    draft.tensors["fc.weight"] = torch.ones(16, 72)
    wide = make_verifier("wide", hidden_size=24)
    assert "embed_tokens.weight" in draft.convert(**OUTPUT, verifier=wide, validate=True).tensors


@pytest.mark.parametrize("config", [{}, {"eagle_config": {KEY: [1, 3, 6]}}, {KEY: [1, 3, 6]}])
def test_how_its_ids_are_counted_must_be_said(torchspec: Make, config: dict[str, Any]) -> None:
    draft = torchspec(**config)
    hint = draft.refusal()["aux-layer-ids"].hint
    assert "`--aux-layer-convention boundary`" in hint
    assert "`--aux-layer-convention output`" in hint
    taken = [1, 3, 6] if config else [1, 3, 4]
    assert draft.convert(aux_layer_convention="boundary").config[KEY] == taken
    assert draft.convert(aux_layer_convention="output").config[KEY] == [number + 1 for number in taken]
    assert draft.convert(aux_layer_ids=[0, 1, 2]).config[KEY] == [0, 1, 2]


def cut_with_offsets(draft: Any) -> Any:
    """The head as its exporter cuts it out of the full one, with offsets taken for token ids."""
    full = torch.randn(32, 16, generator=torch.Generator().manual_seed(0))
    draft.tensors["lm_head.weight"] = full[draft.tensors["d2t"]]
    return draft


def test_a_head_that_was_cut_with_offsets_is_refused(torchspec: Make) -> None:
    refused = cut_with_offsets(torchspec()).refusal(**OUTPUT)["head-rows-duplicated"]
    assert refused.where == "lm_head.weight"
    assert "not in here" in refused.hint


def test_such_a_head_is_found_by_the_headers_level_too(torchspec: Make) -> None:
    draft = cut_with_offsets(torchspec())
    (checked,) = spec_convert.validate(draft.write(), verifier=draft.verifier).checked
    assert "head-rows-duplicated" in {finding.rule for finding in checked.findings}


def test_a_head_that_was_cut_rightly_passes(torchspec: Make) -> None:
    draft = torchspec()
    full = torch.randn(32, 16)
    draft.tensors["lm_head.weight"] = full[draft.tensors["d2t"] + torch.arange(20)]
    assert draft.convert(**OUTPUT).conversion.format == "eagle3-torchspec"


def test_one_pair_of_different_rows_is_enough(torchspec: Make) -> None:
    draft = cut_with_offsets(torchspec())
    draft.tensors["lm_head.weight"] = draft.tensors["lm_head.weight"].clone()
    draft.tensors["lm_head.weight"][10] += 1
    assert draft.convert(**OUTPUT).conversion.format == "eagle3-torchspec"


def test_too_few_equal_offsets_prove_nothing(torchspec: Make, vocabulary_of: Make) -> None:
    draft = torchspec()
    draft.tensors |= vocabulary_of([0, 1, *range(3, 32, 2), 28, 30, 26][:20])
    draft.tensors["lm_head.weight"] = torch.ones(20, 16)
    assert draft.convert(**OUTPUT).conversion.format == "eagle3-torchspec"


def test_the_whole_vocabulary_was_never_cut(torchspec: Make) -> None:
    draft = torchspec(draft_vocab_size=32)
    draft.tensors["lm_head.weight"] = torch.ones(32, 16)
    del draft.tensors["d2t"], draft.tensors["t2d"]
    assert draft.convert(**OUTPUT).conversion.format == "eagle3-torchspec"


def test_a_default_that_no_convention_makes_three_layers_is_refused(torchspec: Make, make_verifier: Make) -> None:
    refused = torchspec().refusal(verifier=make_verifier("shallow", num_hidden_layers=4))["aux-layer-ids"]
    assert "not strictly increasing" in refused.message
    assert "`--aux-layer-ids A,B,C`" in refused.hint
