"""The doctor on drafts that were trained with their authors' code, for a real verifier, and then broken."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from spec_convert import convert
from spec_convert.cli import run
from spec_convert.doctor.diagnosis import Diagnosis, diagnose
from spec_convert.doctor.examination import base_of, listen, parts_of, states_for
from spec_convert.doctor.heard import Heard
from spec_convert.doctor.scoring import MATTERS
from spec_convert.evaluation.prompt import Prompt
from spec_convert.models.load import unified_config
from spec_convert.open import open_checkpoint
from spec_convert.verifier import open_verifier

pytestmark = [pytest.mark.long, pytest.mark.timeout(1200)]

Config = dict[str, Any]
Tensors = dict[str, Tensor]
Damage = Callable[[Config, Tensors], None]
IDS, LAYER, EMBEDDING = "eagle_aux_hidden_state_layer_ids", "transformer_layer_config", "embed_tokens.weight"


@pytest.fixture(scope="module")
def prompts(real_drafts: Path) -> list[str]:
    """As many as make every cause sure: about 250 rows."""
    measured = json.loads((real_drafts / "measured.json").read_text())
    return [str(prompt) for prompt in measured["prompts"][:4]]


@pytest.fixture(scope="module")
def converted(real_drafts: Path, smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """One draft of each kind, in whatever order tests want them."""

    @cache
    def make(kind: str) -> Path:
        output = tmp_path_factory.mktemp("sound") / kind
        convert(real_drafts / f"{kind}_smol135", output, verifier=smollm2)
        return output

    return make


@pytest.fixture(scope="module")
def listened(smollm2: Path, prompts: list[str]) -> Callable[[Path], Heard]:
    """With the states that hypotheses about the sound draft want, and those about one with other layer ids."""

    @cache
    def make(sound: Path) -> Heard:
        asked = [Prompt(turns=(prompt,)) for prompt in prompts]
        config: Any = unified_config(open_checkpoint(sound))
        base, ids = open_verifier(smollm2), config.model_dump().get(IDS, [])
        alike = [config.model_copy(update={IDS: [i + step for i in ids]} if ids else {}) for step in (-1, 0, 1)]
        wanted = dict.fromkeys(state for one in alike for state in states_for(one, base))
        return listen([*wanted], base, asked, max_tokens=64, dtype="float32")

    return make


@pytest.fixture
def sound(request: pytest.FixtureRequest, converted: Callable[[str], Path]) -> Path:
    return converted(request.param)


@pytest.fixture
def heard(sound: Path, listened: Callable[[Path], Heard]) -> Heard:
    return listened(sound)


@pytest.fixture
def diagnosed(sound: Path, smollm2: Path, heard: Heard, tmp_path: Path) -> Callable[[Damage], Diagnosis]:
    """What is found of a copy of the sound draft after the function has changed its config and tensors."""

    def after(damage: Damage) -> Diagnosis:
        config, tensors = json.loads((sound / "config.json").read_text()), load_file(sound / "model.safetensors")
        damage(config, tensors)
        (tmp_path / "broken").mkdir()
        (tmp_path / "broken/config.json").write_text(json.dumps(config))
        save_file(tensors, tmp_path / "broken/model.safetensors")
        base, kind = open_verifier(smollm2), unified_config(open_checkpoint(tmp_path / "broken"))
        parts = parts_of(tmp_path / "broken", kind, base)  # type: ignore[arg-type]
        return diagnose(parts, base_of(base, heard), heard)

    return after


def layer_says(**changes: Any) -> Damage:
    return lambda config, _: config[LAYER].update(changes)


def another(name: str) -> Damage:
    generator = torch.Generator().manual_seed(1)

    def damage(_: Config, tensors: Tensors) -> None:
        there = tensors.get(name)
        shape = (49152, 576) if there is None else there.shape
        tensors[name] = (torch.randn(shape, generator=generator) * 0.13).half()

    return damage


def absolute(_: Config, tensors: Tensors) -> None:
    tensors["d2t"] += torch.arange(len(tensors["d2t"]))


def norm_lost(_: Config, tensors: Tensors) -> None:
    tensors["norm.weight"] = torch.ones_like(tensors["norm.weight"])


EAGLE3: dict[str, tuple[Damage, str]] = {
    "layer ids one lower": (lambda config, _: config.update({IDS: [i - 1 for i in config[IDS]]}), "aux-ids-one-up"),
    "layer ids one higher": (lambda config, _: config.update({IDS: [i + 1 for i in config[IDS]]}), "aux-ids-one-down"),
    "norm placement": (lambda config, _: config.update(norm_before_residual=True), "norm-before-residual"),
    "normed state fed back": (lambda config, _: config.update(norm_output=True), "norm-output"),
    "rotary base": (layer_says(rope_theta=1e6), "rope-theta-10000"),
    "d2t of ids": (absolute, "d2t-absolute"),
    "embedding of another model": (another(EMBEDDING), "embedding-of-the-verifier"),
    "final norm lost": (norm_lost, "norm-of-the-verifier"),
}
EAGLE1: dict[str, tuple[Damage, str]] = {
    "embedding of another model": (another(EMBEDDING), "embedding-of-the-verifier"),
}
BROKEN = {"eagle3": EAGLE3, "eagle1": EAGLE1}
CASES = [pytest.param(kind, name, id=f"{kind}: {name}") for kind, ways in BROKEN.items() for name in ways]


@pytest.mark.parametrize(("sound", "name"), CASES, indirect=["sound"])
def test_the_cause_is_named(sound: Path, name: str, diagnosed: Callable[[Damage], Diagnosis]) -> None:
    damage, code = BROKEN[sound.name][name]
    diagnosis = diagnosed(damage)
    assert [cause.hypothesis.code for cause in diagnosis.causes] == [code], diagnosis


@pytest.mark.parametrize("sound", ["eagle3", "eagle1"], indirect=True)
def test_nothing_is_wrong_with_the_sound_draft(diagnosed: Callable[[Damage], Diagnosis]) -> None:
    diagnosis = diagnosed(lambda config, tensors: None)
    assert diagnosis.verdict == "sound"
    assert diagnosis.at_first.first > 0.45


@pytest.mark.parametrize("sound", ["eagle1"], indirect=True)
def test_a_rotary_base_that_short_answers_do_not_tell_is_no_cause(diagnosed: Callable[[Damage], Diagnosis]) -> None:
    """It learned with 100000."""
    diagnosis = diagnosed(layer_says(rope_theta=10_000.0))
    own = next(one for one in diagnosis.tried if one.hypothesis.code == "rope-theta-100000")
    assert not own.gain.sure
    assert abs(own.gain.tokens) < MATTERS
    assert diagnosis.verdict == "sound"


@pytest.mark.parametrize("sound", ["eagle3"], indirect=True)
def test_layer_ids_that_may_be_counted_in_two_ways(
    sound: Path, smollm2: Path, prompts: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """In ModelOpt's layout, whose trainers count outputs; 2, 15, 27 are the default of those who count inputs."""
    unified, source = json.loads((sound / "config.json").read_text()), tmp_path / "modelopt"
    switches = {"use_aux_hidden_state": True, "use_mtp_layernorm": False, "next_layer_regular": True}
    config = unified[LAYER] | {
        "architectures": ["LlamaForCausalLMEagle3"], "draft_vocab_size": unified["draft_vocab_size"],
        "torch_dtype": "float16", "eagle_config": {IDS: unified[IDS], **switches},
    }  # fmt: skip
    tensors = load_file(sound / "model.safetensors")
    del tensors["t2d"]
    source.mkdir()
    (source / "config.json").write_text(json.dumps(config))
    native = {name.replace("layers.0.", "midlayer."): tensor for name, tensor in tensors.items()}
    save_file(native, source / "model.safetensors")
    (tmp_path / "questions.jsonl").write_text("\n".join(json.dumps({"prompt": prompt}) for prompt in prompts))
    flags = ["--verifier", str(smollm2), "--prompts", str(tmp_path / "questions.jsonl")]
    assert run(["doctor", str(source), *flags]) == 1
    said, told = capfd.readouterr()
    assert "[aux-layer-ids]" in told
    assert "cause       none: nothing that was tried helps" in said
    assert f"spec-convert convert {source} OUTPUT --verifier {smollm2} --aux-layer-convention boundary" in said
