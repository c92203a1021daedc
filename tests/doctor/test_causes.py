"""Each way to break a draft, and the doctor names it; nothing is wrong with the sound ones."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from spec_convert.cli import run
from spec_convert.doctor.examination import Examination, examine, parts_of
from spec_convert.doctor.hypothesis import Base
from spec_convert.doctor.of_config import of_config
from spec_convert.errors import UsageError
from spec_convert.models.load import unified_config
from spec_convert.open import open_checkpoint
from spec_convert.verifier import open_verifier

from . import toy
from .conftest import Break

Config = dict[str, Any]
Tensors = dict[str, Tensor]
IDS, LAYER = "eagle_aux_hidden_state_layer_ids", "transformer_layer_config"
NOISE = torch.Generator().manual_seed(11)


class Broken(NamedTuple):
    """How a draft is broken, the code of the cause, and the flags that mend it (None: converting does not)."""

    damage: Break
    code: str
    flags: tuple[str, ...] | None


def layer_ids(step: int) -> Break:
    return lambda config, _: config.update({IDS: [i + step for i in config[IDS]]})


def says(**changes: Any) -> Break:
    return lambda config, _: config.update(changes)


def layer_says(**changes: Any) -> Break:
    return lambda config, _: config[LAYER].update(changes)


def states_reversed(_: Config, tensors: Tensors) -> None:
    tensors["fc.weight"] = torch.cat(tensors["fc.weight"].chunk(len(toy.FED), dim=1)[::-1], dim=1)


def holds(name: str, make: Callable[[Tensor], Tensor]) -> Break:
    return lambda _, tensors: tensors.update({name: make(tensors[name])})


def absolute(d2t: Tensor) -> Tensor:
    return d2t + torch.arange(len(d2t))


def random(like: Tensor) -> Tensor:
    return torch.randn(like.shape, generator=NOISE) * like.std()


def foreign_embedding(_: Config, tensors: Tensors) -> None:
    tensors["embed_tokens.weight"] = torch.randn(toy.VOCABULARY, toy.HIDDEN, generator=NOISE) * 0.05


def no_embedding(_: Config, tensors: Tensors) -> None:
    tensors["embed_tokens.weight"] = torch.zeros(toy.VOCABULARY, toy.HIDDEN)


def norm_of_another(_: Config, tensors: Tensors) -> None:
    """The weight is in the head instead, which is the same function; then somebody fills in one for the norm."""
    tensors["lm_head.weight"] *= tensors["norm.weight"]
    tensors["norm.weight"] = torch.rand(toy.HIDDEN, generator=NOISE) * 4


def unwanted_layernorms(config: Config, tensors: Tensors) -> None:
    config.update(layernorms=True, layernorm_position="before_fusion")
    for name in ("embed_layernorm", "hidden_layernorm", "lm_head_layernorm"):
        tensors[f"{name}.weight"] = torch.rand(toy.HIDDEN, generator=NOISE)


def unwanted_bias(config: Config, tensors: Tensors) -> None:
    config["fusion_bias"] = True
    tensors["fc.bias"] = 2 * torch.randn(toy.HIDDEN, generator=NOISE)


def as_eagle1(damage: Break) -> Break:
    """Of directories that stock vLLM serves, without what makes it do so: for it, they would be right."""

    def done(config: Config, tensors: Tensors) -> None:
        config.pop("model_type", None)
        config.pop("model", None)
        damage(config, tensors)

    return done


def too_large_for_float16(config: Config, tensors: Tensors) -> None:
    """What is between two layers grows beyond 65504, the largest number of float16; else nothing changes."""
    layer = "layers.0.mlp."
    tensors[f"{layer}up_proj.weight"] *= 2.0**15
    tensors[f"{layer}down_proj.weight"] /= 2.0**15
    config["torch_dtype"] = "float16"
    tensors.update({name: tensor.half() for name, tensor in tensors.items() if tensor.is_floating_point()})


def both(*damages: Break) -> Break:
    def damage(config: Config, tensors: Tensors) -> None:
        for one in damages:
            one(config, tensors)

    return damage


EAGLE3 = {
    "output ids in place of boundary ids": Broken(layer_ids(-1), "aux-ids-one-up", ("--aux-layer-ids", "2,4,5")),
    "boundary ids taken for output ids": Broken(layer_ids(1), "aux-ids-one-down", ("--aux-layer-ids", "2,4,5")),
    "states in the other order": Broken(states_reversed, "aux-states-reversed", None),
    "norm placement": Broken(says(norm_before_residual=False), "norm-before-residual", ("--norm-before-residual",)),
    "rotary base": Broken(layer_says(rope_theta=1e6), "rope-theta-10000", ("--rope-theta", "10000")),
    "rotary scaling": Broken(
        layer_says(rope_scaling={"rope_type": "linear", "factor": 8.0}), "rope-not-scaled", None
    ),
    "d2t of ids": Broken(holds("d2t", absolute), "d2t-absolute", ()),
    "d2t of zeros": Broken(holds("d2t", torch.zeros_like), "d2t-of-t2d", None),
    "t2d of another": Broken(holds("t2d", lambda t2d: t2d.flip(0)), "t2d-of-d2t", None),
    "embedding of another model": Broken(foreign_embedding, "embedding-of-the-verifier", None),
    "embedding of zeros": Broken(no_embedding, "embedding-of-the-verifier", None),
    "head never trained": Broken(holds("lm_head.weight", random), "head-of-the-verifier", None),
    "final norm lost": Broken(holds("norm.weight", torch.ones_like), "norm-of-the-verifier", None),
    "final norm of another": Broken(norm_of_another, "norm-of-ones", None),
}  # fmt: skip

EAGLE1 = {
    "rotary base": Broken(layer_says(rope_theta=1e6), "rope-theta-10000", ("--rope-theta", "10000")),
    "embedding of another model": Broken(foreign_embedding, "embedding-of-the-verifier", None),
    "layernorms that it never had": Broken(unwanted_layernorms, "no-layernorms", ("--no-layernorms",)),
    "a bias that it never had": Broken(unwanted_bias, "no-fusion-bias", ("--no-fusion-bias",)),
}

WAYS = {"eagle3": EAGLE3, "eagle1": {name: one._replace(damage=as_eagle1(one.damage)) for name, one in EAGLE1.items()}}


def codes(examination: Examination) -> list[str]:
    return [cause.hypothesis.code for cause in examination.diagnosis.causes]


@pytest.mark.parametrize(
    ("kind", "name"), [("eagle3", name) for name in EAGLE3] + [("eagle1", name) for name in EAGLE1]
)
def test_the_cause_is_named(
    kind: str, name: str, request: pytest.FixtureRequest, broken: Callable[..., Path],
    examined: Callable[..., Examination],
) -> None:  # fmt: skip
    damage, code, flags = WAYS[kind][name]
    draft = broken(request.getfixturevalue(kind), damage)
    examination = examined(draft)
    assert codes(examination) == [code]
    command = ("spec-convert", "convert", str(draft), "OUTPUT", "--verifier", examination.verifier)
    assert examination.command == (None if flags is None else " ".join((*command, *flags)))
    assert flags is not None or examination.diagnosis.causes[0].hypothesis.fix.words


@pytest.mark.long
@pytest.mark.parametrize("name", [name for name, one in EAGLE3.items() if one.flags is not None])
def test_what_is_to_be_typed_makes_the_draft_sound(
    name: str, eagle3: Path, broken: Callable[..., Path], examined: Callable[..., Examination], tmp_path: Path
) -> None:
    examination = examined(broken(eagle3, EAGLE3[name].damage))
    mended = tmp_path / "mended"
    assert examination.command is not None
    assert run(["-q", *examination.command.replace("OUTPUT", str(mended)).split()[1:]]) == 0
    before, after = load_file(eagle3 / "model.safetensors"), load_file(mended / "model.safetensors")
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert examined(mended).diagnosis.verdict == "sound"


def test_the_words_name_the_cause_and_what_to_type(
    eagle3: Path, broken: Callable[..., Path], verifier: Path, questions: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    draft = broken(eagle3, EAGLE3["rotary base"].damage)
    flags = ["--verifier", str(verifier), "--prompts", str(questions), "--max-tokens", "40"]
    assert run(["-q", "doctor", str(draft), *flags]) == 1
    said = capfd.readouterr().out
    assert "cause       its rotary base is 10000, the verifier's, not 1e+06" in said
    assert f"type        spec-convert convert {draft} OUTPUT --verifier {verifier} --rope-theta 10000" in said
    assert run(["-q", "doctor", str(draft), *flags, "--json"]) == 1
    found = json.loads(capfd.readouterr().out)
    assert [cause["code"] for cause in found["causes"]] == ["rope-theta-10000"]
    assert found["mended"]["first"] > found["as_it_is"]["first"]
    assert run(["-q", "doctor", str(eagle3), *flags]) == 0
    assert "cause       none" in capfd.readouterr().out


def test_too_few_rows_tell_nothing(eagle3: Path, verifier: Path, questions: Path) -> None:
    with pytest.raises(UsageError, match="fewer than 50 tell nothing from noise"):
        examine(eagle3, verifier=verifier, prompts=questions, limit=1, max_tokens=40)


def test_an_overflow_is_told_by_computing_in_a_wider_type(
    eagle3: Path, broken: Callable[..., Path], examined: Callable[..., Examination]
) -> None:
    examination = examined(broken(eagle3, too_large_for_float16))
    (code,) = codes(examination)
    assert code in ("computes-in-bfloat16", "computes-in-float32")
    assert examination.diagnosis.at_first.no_numbers > 0


@pytest.mark.parametrize(
    ("one", "other"),
    [("output ids in place of boundary ids", "rotary base"), ("d2t of ids", "norm placement")],
)
def test_two_causes_are_both_named(
    one: str, other: str, eagle3: Path, broken: Callable[..., Path], examined: Callable[..., Examination]
) -> None:
    examination = examined(broken(eagle3, both(EAGLE3[one].damage, EAGLE3[other].damage)))
    assert set(codes(examination)) == {EAGLE3[one].code, EAGLE3[other].code}
    flags = [*(EAGLE3[one].flags or ()), *(EAGLE3[other].flags or ())]
    assert all(flag in (examination.command or "").split() for flag in flags)


def test_eagle1_that_learned_from_states_before_the_norm_is_told(
    eagle1: Path, verifier: Path, broken: Callable[..., Path], examined: Callable[..., Examination]
) -> None:
    learned = toy.learn_before_norm(eagle1, verifier)
    examination = examined(broken(eagle1, lambda _, tensors: tensors.update(learned)))
    assert set(codes(examination)) == {"state-before-norm", "head-after-norm"}
    assert examination.command is None


@pytest.mark.parametrize("kind", ["eagle3", "eagle1"])
def test_nothing_is_wrong_with_a_sound_draft(
    kind: str, request: pytest.FixtureRequest, examined: Callable[..., Examination]
) -> None:
    diagnosis = examined(request.getfixturevalue(kind)).diagnosis
    assert diagnosis.verdict == "sound"
    assert diagnosis.at_first.first > 0.7


def test_a_layernorm_at_its_other_place_is_the_same_norm(
    eagle1: Path, broken: Callable[..., Path], verifier: Path
) -> None:
    """No trainer at hand makes a draft with layernorms: what is tried of one is shown to be what it should be."""
    draft = broken(eagle1, as_eagle1(unwanted_layernorms))
    config: Any = unified_config(open_checkpoint(draft))
    parts = parts_of(draft, config, open_verifier(verifier))
    base = Base(layers=toy.LAYERS, config={}, norm=torch.ones(toy.HIDDEN))
    moved = next(one for one in of_config(parts, base) if one.code == "layernorm-moved").edit(parts)
    there = moved.build(torch.device("cpu")).get_parameter("layers.0.input_layernorm.weight")
    assert torch.equal(there, parts.tensors["hidden_layernorm.weight"])


def test_another_verifier_of_the_same_sizes_is_told(
    eagle3: Path, verifier: Path, tmp_path: Path, examined: Callable[..., Examination]
) -> None:
    other = toy.write_with_other_channels(verifier, tmp_path / "other")
    diagnosis = examined(eagle3, base=other).diagnosis
    assert diagnosis.verdict == "lost"
    tried = [(one.beside, one.hypothesis.code) for one in diagnosis.tried]
    assert len(tried) == len(set(tried))


def test_a_draft_that_was_never_trained_is_told(
    eagle3: Path, broken: Callable[..., Path], examined: Callable[..., Examination]
) -> None:
    def damage(_: Config, tensors: Tensors) -> None:
        tensors.update({name: random(tensor) for name, tensor in tensors.items() if tensor.is_floating_point()})

    assert examined(broken(eagle3, damage)).diagnosis.verdict == "lost"
