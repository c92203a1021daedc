"""Quantised drafts: told with their scheme, and never converted as if their numbers were the weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch

from spec_convert import detect, validate

Make = Callable[..., Any]
QUERY = "midlayer.self_attn.q_proj"
SCHEMES = {
    "compressed-tensors float-quantized": {"quant_method": "compressed-tensors", "format": "float-quantized"},
    "modelopt FP8": {"quant_method": "modelopt", "quant_algo": "FP8"},
    "fp8": {"quant_method": "fp8"},
    "a scheme that no config names": None,
}


def fp8(draft: Any) -> Any:
    draft.tensors[f"{QUERY}.weight"] = draft.tensors[f"{QUERY}.weight"].to(torch.float8_e4m3fn)
    draft.tensors[f"{QUERY}.weight_scale"] = torch.ones(1)
    return draft


def packed(draft: Any) -> Any:
    weight = draft.tensors.pop(f"{QUERY}.weight")
    draft.tensors[f"{QUERY}.weight_packed"] = torch.zeros(weight.shape[0], weight.shape[1] // 8, dtype=torch.int32)
    draft.tensors[f"{QUERY}.weight_scale"] = torch.ones(weight.shape[0], 1)
    draft.tensors[f"{QUERY}.weight_shape"] = torch.tensor(weight.shape)
    return draft


@pytest.mark.parametrize("scheme", SCHEMES)
def test_weights_that_keep_their_names_leave_the_format_to_be_seen(specforge: Make, scheme: str) -> None:
    draft = fp8(specforge(quantization_config=SCHEMES[scheme]))
    assert detect(draft.write()).format == "eagle3-specforge"
    refused = draft.refusal()
    assert refused.keys() == {"weights-quantised"}
    assert refused["weights-quantised"].message.startswith(f"quantised by {scheme}:")
    assert "before quantisation" in refused["weights-quantised"].hint


def test_modelopts_file_beside_the_weights_names_the_scheme_too(specforge: Make) -> None:
    draft = fp8(specforge())
    beside = {"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "NVFP4", "kv_cache_quant_algo": "FP8"}}
    (draft.write() / "hf_quant_config.json").write_text(json.dumps(beside))
    assert "quantised by NVFP4" in draft.refusal()["weights-quantised"].message


@pytest.mark.parametrize("kind", ["eagle", "eagle3"])
def test_scales_alone_are_a_mark(request: pytest.FixtureRequest, kind: str) -> None:
    draft = request.getfixturevalue(kind)()
    draft.tensors["fc.weight_scale"] = torch.ones(1)
    assert draft.refusal().keys() == {"weights-quantised"}


def test_packed_weights_are_told_although_they_hide_their_layout(specforge: Make) -> None:
    draft = packed(specforge(quantization_config={"quant_method": "compressed-tensors", "format": "pack-quantized"}))
    detection = detect(draft.write())
    assert (detection.format, detection.features["scheme"]) == ("quantised", "compressed-tensors pack-quantized")
    assert draft.refusal().keys() == {"weights-quantised"}


def test_a_unified_directory_that_was_quantised_is_refused_too(specforge: Make) -> None:
    draft = specforge()
    converted = draft.convert()
    draft.config, draft.tensors = converted.config, converted.tensors
    name = "layers.0.self_attn.q_proj.weight"
    draft.tensors[name] = draft.tensors[name].to(torch.float8_e4m3fn)
    draft.tensors[f"{name}_scale"] = torch.ones(1)
    (checked,) = validate(draft.write(), verifier=draft.verifier).checked
    assert "weights-quantised" in {finding.rule for finding in checked.findings}


def test_a_whole_model_may_be_quantised_and_is_served_as_it_lies(specforge: Make) -> None:
    draft = specforge()
    names = ("embed_tokens", "layers.0.input_layernorm", "norm", "layers.0.self_attn.o_proj")
    draft.tensors = {f"model.{name}.weight": torch.ones(16) for name in names}
    draft.tensors["model.layers.0.self_attn.o_proj.weight_scale"] = torch.ones(1)
    assert detect(draft.write()).format == "dense-draft"


def test_a_config_that_was_copied_from_a_quantised_verifier_is_no_mark(specforge: Make) -> None:
    refused = specforge(quantization_config={"quant_method": "fp8"}).refusal()
    assert refused.keys() == {"not-representable"}
    assert "remove it from config.json" in refused["not-representable"].hint
