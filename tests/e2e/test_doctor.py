"""The doctor on drafts that were trained with their authors' code, for a real verifier, and then broken."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
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
from spec_convert.evaluation.prompt import Prompt
from spec_convert.models.load import unified_config
from spec_convert.open import open_checkpoint
from spec_convert.verifier import open_verifier

pytestmark = [pytest.mark.long, pytest.mark.timeout(2400)]

Config = dict[str, Any]
Tensors = dict[str, Tensor]
Damage = Callable[[Config, Tensors], None]
IDS, LAYER, EMBEDDING = "eagle_aux_hidden_state_layer_ids", "transformer_layer_config", "embed_tokens.weight"


@pytest.fixture(scope="module", autouse=True)
def every_core() -> Iterator[None]:
    few = torch.get_num_threads()
    torch.set_num_threads(os.cpu_count() or few)
    yield
    torch.set_num_threads(few)


@pytest.fixture(scope="module")
def prompts(real_drafts: Path) -> list[str]:
    """As many as make every cause sure: about 250 rows."""
    measured = json.loads((real_drafts / "measured.json").read_text())
    return [str(prompt) for prompt in measured["prompts"][:4]]


@pytest.fixture(scope="module")
def sound(
    request: pytest.FixtureRequest, real_drafts: Path, smollm2: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    output = tmp_path_factory.mktemp("sound") / request.param
    convert(real_drafts / f"{request.param}_smol135", output, verifier=smollm2)
    return output


@pytest.fixture(scope="module")
def heard(sound: Path, smollm2: Path, prompts: list[str]) -> Heard:
    """With the states that hypotheses about the sound draft want, and those about one with other layer ids."""
    asked = [Prompt(turns=(prompt,)) for prompt in prompts]
    config: Any = unified_config(open_checkpoint(sound))
    base, ids = open_verifier(smollm2), config.model_dump().get(IDS, [])
    alike = [config.model_copy(update={IDS: [i + step for i in ids]} if ids else {}) for step in (-1, 0, 1)]
    wanted = dict.fromkeys(state for one in alike for state in states_for(one, base))
    return listen([*wanted], base, asked, max_tokens=64, dtype="float32")


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
    "rotary base": (layer_says(rope_theta=10.0), "rope-theta-100000"),
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


@pytest.mark.parametrize("sound", ["eagle3"], indirect=True)
def test_layer_ids_of_the_other_convention_and_what_to_type(
    sound: Path, smollm2: Path, prompts: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "shifted"
    convert(sound, output, verifier=smollm2, aux_layer_ids=(1, 14, 26))
    (tmp_path / "questions.jsonl").write_text("\n".join(json.dumps({"prompt": prompt}) for prompt in prompts))
    flags = ["--verifier", str(smollm2), "--prompts", str(tmp_path / "questions.jsonl")]
    assert run(["doctor", str(output), *flags]) == 1
    said = capfd.readouterr().out
    assert f"spec-convert convert {output} OUTPUT --verifier {smollm2} --aux-layer-ids 2,15,27" in said
