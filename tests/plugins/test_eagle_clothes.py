"""EAGLE-1 in other clothes: other class names, prefixes of saved wrappers, FR-Spec's lists beside it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from spec_convert import detect
from spec_convert.errors import Unreadable

Make = Callable[..., Any]


@pytest.mark.parametrize(
    "clothes",
    [
        {"architectures": ["LlamaForCausalLMEagle"]},
        {"architectures": ["Qwen2ForCausalLMEagle"], "model_type": "qwen2"},
        {"architectures": ["MistralForCausalLM"], "model_type": "mistral"},
        {"model_type": "mixtral"}, {"architectures": ...},
    ],
)  # fmt: skip
def test_what_its_config_calls_itself_does_not_matter(eagle: Make, clothes: dict[str, Any]) -> None:
    converted = eagle(**clothes).convert(validate=True)
    assert converted.conversion.format == "eagle"
    assert converted.layer["model_type"] == "llama"


def test_a_baldeagle_always_has_a_fusion_bias_and_keeps_it(eagle: Make) -> None:
    draft = eagle(architectures=["LlamaForCausalLMEagle"])
    draft.tensors["fc.bias"] = torch.full((16,), 0.25)
    assert torch.equal(draft.convert(validate=True).tensors["fc.bias"], torch.full((16,), 0.25))


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "draft_model.", "model.", "module.draft_model.model."])
def test_a_prefix_of_a_wrapper_that_was_saved_is_left_out(eagle: Make, prefix: str) -> None:
    wrapped = eagle()
    plain = wrapped.convert()
    wrapped.tensors = {prefix + name: tensor for name, tensor in wrapped.tensors.items()}
    converted = wrapped.convert(validate=True)
    assert converted.tensors.keys() == plain.tensors.keys()
    assert converted.config == plain.config


@pytest.mark.parametrize("prefix", ["module.", "draft_model."])
def test_the_same_of_eagle3(eagle3: Make, prefix: str) -> None:
    draft = eagle3()
    draft.tensors = {prefix + name: tensor for name, tensor in draft.tensors.items()}
    assert draft.convert(validate=True).conversion.format == "eagle3"


def test_a_list_of_frequent_tokens_beside_it_is_left_out_with_a_note(eagle: Make) -> None:
    draft = eagle()
    torch.save(list(range(0, 32, 4)), draft.write() / "freq_8.pt")
    note = draft.convert(validate=True).findings["token-map-left-out"]
    assert (note.level, note.where) == ("note", "freq_8.pt")


def test_a_list_of_frequent_tokens_is_not_taken_for_the_weights(eagle: Make) -> None:
    draft = eagle()
    folder = draft.write()
    (folder / "model.safetensors").rename(folder / "epoch_3.safetensors")
    torch.save([3, 1, 2], folder / "freq_32768.pt")
    assert detect(folder).checkpoint.weight_files == ("epoch_3.safetensors",)


def test_minicpms_list_inside_the_file_is_left_out_with_a_note(eagle: Make) -> None:
    draft = eagle()
    draft.tensors["token_id_remap"] = torch.arange(8)
    converted = draft.convert(validate=True)
    assert converted.findings["token-map-left-out"].where == "token_id_remap"
    assert "token_id_remap" in converted.dropped


@pytest.mark.parametrize("legacy", [False, True])
def test_a_list_alone_is_read_without_executing_it_and_told(legacy: bool, tmp_path: Path) -> None:
    file = tmp_path / "freq_8192.pt"
    torch.save(list(range(8192)), file, _use_new_zipfile_serialization=not legacy)
    for source in (file, tmp_path):
        with pytest.raises(Unreadable) as refused:
            detect(source)
        assert refused.value.finding.rule == "no-weights"
    with pytest.raises(Unreadable, match="a list of 8192 token ids"):
        detect(file)
