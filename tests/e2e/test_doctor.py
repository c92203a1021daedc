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
from spec_convert.doctor.examination import base_of, listen, parts_of
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
    measured = json.loads((real_drafts / "measured.json").read_text())
    return [str(prompt) for prompt in measured["prompts"][:8]]


@pytest.fixture(scope="module", params=["eagle1", "eagle3"])
def sound(
    request: pytest.FixtureRequest, real_drafts: Path, smollm2: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    output = tmp_path_factory.mktemp("sound") / request.param
    convert(real_drafts / f"{request.param}_smol135", output, verifier=smollm2)
    return output


@pytest.fixture(scope="module")
def heard(sound: Path, smollm2: Path, prompts: list[str]) -> Heard:
    asked = [Prompt(turns=(prompt,)) for prompt in prompts]
    config: Any = unified_config(open_checkpoint(sound))
    return listen(config, open_verifier(smollm2), asked, max_tokens=64, dtype="float32")


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


BROKEN: dict[tuple[str, str], tuple[Damage, str]] = {
    ("eagle3", "layer ids one lower"): (
        lambda config, _: config.update({IDS: [i - 1 for i in config[IDS]]}), "aux-ids-one-up"
    ),
    ("eagle3", "layer ids one higher"): (
        lambda config, _: config.update({IDS: [i + 1 for i in config[IDS]]}), "aux-ids-one-down"
    ),
    ("eagle3", "norm placement"): (
        lambda config, _: config.update(norm_before_residual=True), "norm-before-residual"
    ),
    ("eagle3", "normed state fed back"): (lambda config, _: config.update(norm_output=True), "norm-output"),
    ("eagle3", "rotary base"): (layer_says(rope_theta=100.0), "rope-theta-10000"),
    ("eagle3", "d2t of ids"): (absolute, "d2t-absolute"),
    ("eagle3", "embedding of another model"): (another(EMBEDDING), "embedding-of-the-verifier"),
    ("eagle3", "final norm lost"): (norm_lost, "norm-of-the-verifier"),
    ("eagle1", "embedding of another model"): (another(EMBEDDING), "embedding-of-the-verifier"),
    ("eagle1", "rotary base"): (layer_says(rope_theta=10.0), "rope-theta-100000"),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted({name for _, name in BROKEN}))
def test_the_cause_is_named(name: str, sound: Path, diagnosed: Callable[[Damage], Diagnosis]) -> None:
    if (sound.name, name) not in BROKEN:
        pytest.skip(f"{sound.name} cannot be broken so")
    damage, code = BROKEN[sound.name, name]
    diagnosis = diagnosed(damage)
    named = [cause.hypothesis.code for cause in diagnosis.causes]
    as_good = [one.hypothesis.code for cause in diagnosis.causes for one in diagnosis.as_good(cause)]
    assert len(named) == 1, named
    assert code in [*named, *as_good], diagnosis


def test_nothing_is_wrong_with_the_sound_draft(diagnosed: Callable[[Damage], Diagnosis]) -> None:
    diagnosis = diagnosed(lambda config, tensors: None)
    assert diagnosis.verdict == "sound"
    assert diagnosis.at_first.first > 0.45


def test_the_command_says_what_to_type(
    sound: Path, smollm2: Path, prompts: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    if sound.name != "eagle3":
        pytest.skip("one draft is enough for the words")
    output = tmp_path / "shifted"
    convert(sound, output, verifier=smollm2, aux_layer_ids=(1, 14, 26))
    (tmp_path / "questions.jsonl").write_text("\n".join(json.dumps({"prompt": prompt}) for prompt in prompts))
    flags = ["--verifier", str(smollm2), "--prompts", str(tmp_path / "questions.jsonl")]
    assert run(["doctor", str(output), *flags]) == 1
    said = capfd.readouterr().out
    assert f"spec-convert convert {output} OUTPUT --verifier {smollm2} --aux-layer-ids 2,15,27" in said
