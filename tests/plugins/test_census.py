"""Every layout that is published has an answer: what is not converted is named, with the reason and what to type."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from spec_convert import detect, validate
from spec_convert.errors import Refused
from spec_convert.registry import registry
from spec_convert.testing import tiny_checkpoint, write_example
from spec_convert.testing.tiny import example_of

Write = Callable[..., Path]
SERVED = sorted(name for name, fmt in registry().formats.items() if fmt.unconverted and fmt.unconverted.served)


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """`write("hydra", config={…}, shapes={…})`: the example of a format, with keys and tensors added or taken away."""

    def make(name: str, *, config: Any = None, shapes: Any = None, renamed: Any = None, **parts: Any) -> Path:
        made = example_of(name)
        names = {(renamed(old) if renamed else old): shape for old, shape in made.shapes.items()}
        changed = replace(
            made, config=_changed(made.config, config), shapes=_changed(names, shapes), **parts,
        )  # fmt: skip
        return write_example(changed, tmp_path / "draft")

    return make


def _changed(old: Any, new: Any) -> dict[str, Any]:
    return {key: value for key, value in {**old, **(new or {})}.items() if value is not ...}


@pytest.mark.parametrize("name", SERVED)
def test_the_hint_is_a_command_that_vllm_takes(name: str, tmp_path: Path) -> None:
    draft = tiny_checkpoint(name, tmp_path / "draft")
    told = re.search(r"`vllm serve BASE --speculative-config '(.*)'`", detect(draft).features["instead"])
    assert told is not None
    said = json.loads(told[1])
    assert said["model"] == str(draft)
    assert said["num_speculative_tokens"] == 3
    assert said.keys() <= {"method", "model", "num_speculative_tokens", "parallel_drafting"}


VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "kimi_k2, later spelling": ("eagle3-mla", {"renamed": lambda n: n.replace("layers.0.", "midlayer.")}),
    "vLLM's own Medusa names": (
        "medusa-heads", {"renamed": lambda n: f"medusa_heads.{n}", "file": "model.safetensors"},
    ),
    "Medusa that says nothing of its heads": ("medusa-heads", {"config": {"medusa_num_heads": ...}}),
    "Hydra by its names alone": ("hydra", {"config": {"hydra_num_heads": ...}, "file": "model.safetensors"}),
    "Mistral's fusion": ("eagle-vllm-native", {"renamed": lambda n: n.replace("fc.", "eagle_linear.")}),
    "DeepSeek's EAGLE-1": (
        "eagle-vllm-native",
        {
            "renamed": lambda n: n.replace("eagle_layers", "layers").replace("q_proj", "kv_a_proj_with_mqa"),
            "shapes": {"enorm.weight": (16,), "hnorm.weight": (16,)},
        },
    ),
    "ViSpec as its authors publish it": (
        "eagle-vision",
        {"config": {"architectures": ["LlamaForCausalLM"]}, "renamed": lambda n: n.replace("img_adaptor", "imadpt")},
    ),
    "MSD": ("eagle-vision", {"config": {"architectures": ["MSDDraftModel"]}, "shapes": {"img_adaptor.query": ...}}),
    "DFlare under another class": ("dflare", {"config": {"architectures": ["SomeDraft"]}}),
    "LiLiCorr": ("dflash2", {"config": {"architectures": ["LiLiCorrDraftModel"]}}),
    "DFlash2 under another class": ("dflash2", {"config": {"architectures": ["DFlashDraftModel"]}}),
    "a tied whole model": ("dense-draft", {"shapes": {"lm_head.weight": ...}}),
    "a whole Qwen": ("dense-draft", {"config": {"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3"}}),
}  # fmt: skip


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_other_clothes_of_a_layout_are_known_too(variant: str, write: Write) -> None:
    name, changes = VARIANTS[variant]
    detection = detect(write(name, **changes))
    assert detection.format == name
    assert detection.to_json()["also_possible"] == {}


@pytest.mark.parametrize(
    ("architecture", "more"),
    [
        ("CohereForCausalLM", {"fc.bias": (16,), "norm.weight": (16,)}),
        ("Llama4ForCausalLM", {"norm.weight": (16,)}),
        ("EagleMistralForCausalLM", {"norm.weight": (16,)}),
    ],
)
def test_eagle_of_another_architecture_is_left_to_vllms_class(architecture: str, more: Any, write: Write) -> None:
    assert detect(write("eagle", config={"architectures": [architecture]}, shapes=more)).format == "eagle-vllm-native"


@pytest.mark.parametrize(
    "inside", ["model.layers.1.eh_proj.weight", "mtp.fc.weight", "model.mtp_layers.0.input_proj.weight"]
)
def test_a_whole_model_with_a_head_for_more_tokens_is_no_draft(inside: str, write: Write) -> None:
    assert taken_for(write("dense-draft", shapes={inside: (16, 32)})) != "dense-draft"


def taken_for(folder: Path) -> str | None:
    try:
        return detect(folder).format
    except Refused:
        return None


def test_a_format_that_converts_wins_over_one_that_only_recognises(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As the Medusa plugin does, whatever its evidence: nobody is told of a claim that would end in a refusal."""
    converts = replace(registry()["eagle"], name="hydra-plugin", recognise=registry()["hydra"].recognise)
    monkeypatch.setitem(registry().formats, "hydra-plugin", converts)
    monkeypatch.setitem(registry()._providers, "hydra-plugin", "hydra 1.0")
    detection = detect(tiny_checkpoint("hydra", tmp_path / "draft"))
    assert detection.format == "hydra-plugin"
    assert detection.findings == []
    assert detection.to_json()["also_possible"] == {}


def test_what_fits_nothing_names_the_nearest_format_that_would_convert_it(write: Write) -> None:
    folder = write("eagle", shapes={"fc.weight": (16, 33)})
    with pytest.raises(Refused) as refused:
        detect(folder)
    (finding,) = refused.value.findings
    assert finding.rule == "unknown-format"
    nearest = re.search(r"the nearest is `([\w-]+)`", finding.message)
    assert nearest is not None
    assert registry()[nearest[1]].unconverted is None


@pytest.mark.parametrize(
    ("shapes", "rule", "where"),
    [
        ({"speculator.proj.0.weight": (40, 17)}, "wrong-shape", "speculator.proj.0.weight"),
        ({"speculator.head.2.weight": ...}, "missing-tensor", "speculator.head"),
        ({"speculator.ln.1.bias": ...}, "missing-tensor", "speculator.ln.1.bias"),
        ({"speculator.gate.weight": (2, 2)}, "unclaimed-tensor", "speculator.gate.weight"),
    ],
)
def test_a_damaged_mlp_speculator_is_told_from_a_sound_one(shapes: Any, rule: str, where: str, write: Write) -> None:
    (checked,) = validate(write("mlp-speculator", shapes=shapes)).checked
    assert (rule, where) in {(finding.rule, finding.where) for finding in checked.findings}
    assert "not-converted" in {finding.rule for finding in checked.findings}


def test_an_mlp_speculator_with_tied_stages_may_hold_them_once(write: Write) -> None:
    once = {
        f"speculator.{part}.{stage}.{kind}": ...
        for part, kinds in {"emb": ["weight"], "head": ["weight"], "ln": ["weight", "bias"]}.items()
        for kind in kinds
        for stage in (1, 2)
    }
    tied = write("mlp-speculator", shapes=once | {"speculator.proj.2.weight": ...}, config={"tie_weights": True})
    assert [finding.rule for finding in validate(tied).checked[0].findings] == ["not-converted"]
    untied = write("mlp-speculator", shapes=once | {"speculator.proj.2.weight": ...})
    assert "missing-tensor" in {finding.rule for finding in validate(untied).checked[0].findings}


def test_hydra_is_read_from_the_pickle_that_its_authors_publish(write: Write) -> None:
    assert detect(write("hydra")).checkpoint.weight_files == ("hydra_lm_head.pt",)
