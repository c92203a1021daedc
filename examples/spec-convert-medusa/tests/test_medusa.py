"""Medusa heads: the contract that every format keeps, and what is Medusa's own."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from spec_convert_medusa import config_model, example, logits
from torch import nn

from spec_convert import convert, detect, load_draft, validate
from spec_convert.conversion import Conversion
from spec_convert.errors import Refused, SpecConvertError, UsageError
from spec_convert.servable import servable
from spec_convert.testing import FormatContract, Sizes, tiny_checkpoint, tiny_verifier, write_example

Convert = Callable[..., Conversion]


class TestMedusa(FormatContract):
    format = "medusa"


@pytest.fixture
def draft(tmp_path: Path) -> Path:
    return tiny_checkpoint("medusa", tmp_path / "draft")


@pytest.fixture
def unify(draft: Path, tmp_path: Path) -> Convert:
    """`unify()` converts the draft, `unify(folder, flag=…)` another one, for a verifier that fits."""
    verifier, outputs = tiny_verifier(tmp_path / "verifier"), iter(range(10))

    def run(source: Path = draft, **flags: Any) -> Conversion:
        return convert(source, tmp_path / f"unified-{next(outputs)}", **{"verifier": verifier} | flags)

    return run


def config_of(folder: Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return config


def test_the_config_is_one_of_vllms_own_medusa(unify: Convert) -> None:
    config = config_of(unify().output)
    heads = {"num_heads": 3, "num_hidden_layers": 1, "hidden_size": 16, "vocab_size": 32, "truncated_vocab_size": 32}
    assert config.items() >= (heads | {"model_type": "medusa", "medusa_fc_bias": True}).items()
    assert config["architectures"] == ["MedusaModel"]
    assert config["speculators_config"]["proposal_methods"][0]["speculative_tokens"] == 3


def test_every_tensor_keeps_its_numbers_under_vllms_name(draft: Path, unify: Convert) -> None:
    published, unified = (
        load_file(draft / "medusa_lm_head.safetensors"),
        load_file(unify().output / "model.safetensors"),
    )
    assert len(unified) == len(published) == 9
    for head in range(3):
        assert torch.equal(unified[f"blocks.{head}.layers.0.weight"], published[f"{head}.0.linear.weight"])
        assert torch.equal(unified[f"blocks.{head}.layers.0.bias"], published[f"{head}.0.linear.bias"])
        assert torch.equal(unified[f"lm_heads.{head}.weight"], published[f"{head}.1.weight"])


def test_heads_and_layers_are_counted_in_the_file(tmp_path: Path, unify: Convert) -> None:
    made = example(Sizes(layers=2))
    folder = write_example(replace(made, config={"medusa_num_heads": 5, "medusa_num_layers": 1}), tmp_path / "lies")
    result = unify(folder)
    assert config_of(result.output).items() >= {"num_heads": 3, "num_hidden_layers": 2}.items()
    assert [finding.message for finding in result.findings if finding.rule == "layer-count-differs"] == [
        "says medusa_num_heads 5, the file holds 3",
        "says medusa_num_layers 1, the file holds 2",
    ]


def test_the_pickle_of_the_first_releases_gives_the_same_directory(draft: Path, tmp_path: Path, unify: Convert) -> None:
    pickled = tmp_path / "pickled"
    pickled.mkdir()
    (pickled / "config.json").write_text((draft / "config.json").read_text())
    torch.save(load_file(draft / "medusa_lm_head.safetensors"), pickled / "medusa_lm_head.pt")
    one, other = unify().output, unify(pickled).output
    for name in ("config.json", "model.safetensors"):
        assert (one / name).read_bytes() == (other / name).read_bytes()


def test_converting_what_was_converted_changes_nothing(unify: Convert) -> None:
    once = unify().output
    again = unify(once, verifier=None).output
    for name in ("config.json", "model.safetensors"):
        assert (once / name).read_bytes() == (again / name).read_bytes()


def test_fewer_tokens_than_heads_may_be_proposed_and_stay_so(unify: Convert) -> None:
    fewer = unify(speculative_tokens=2)
    again = unify(fewer.output)
    methods = config_of(again.output)["speculators_config"]["proposal_methods"]
    assert [method["speculative_tokens"] for method in methods] == [2]


def test_more_tokens_than_heads_are_refused(unify: Convert) -> None:
    with pytest.raises(Refused, match="3 heads propose 3 tokens, not 4"):
        unify(speculative_tokens=4)


@pytest.mark.parametrize(("key", "value"), [("num_heads", 4), ("hidden_size", 8), ("medusa_fc_bias", False)])
def test_a_unified_config_that_says_something_else_than_its_tensors_is_found(
    unify: Convert, key: str, value: object
) -> None:
    folder = unify().output
    (folder / "config.json").write_text(json.dumps(config_of(folder) | {key: value}))
    assert validate(folder).has_errors


def test_the_heads_of_a_grounded_hydra_are_not_taken_for_medusa(tmp_path: Path) -> None:
    made = example(Sizes())
    wider = {name: (16, 48) for name in made.shapes if name.endswith("linear.weight")}
    folder = write_example(replace(made, shapes={**made.shapes, **wider}), tmp_path / "hydra")
    with pytest.raises(Refused, match="no known format fits"):
        detect(folder)
    with pytest.raises(Refused):
        convert(folder, tmp_path / "out", verifier=tiny_verifier(tmp_path / "verifier"), format="medusa")


def test_the_heads_compute_what_the_authors_modules_compute(unify: Convert) -> None:
    """Their ResBlock is x + SiLU(Linear(x)); a head is a sequence of them and a Linear without bias."""
    folder = unify().output
    tensors, states = load_file(folder / "model.safetensors"), torch.randn(4, 16)
    for number, said in enumerate(logits(config_model().model_validate(config_of(folder)), tensors, states)):
        linear, head = nn.Linear(16, 16), nn.Linear(16, 32, bias=False)
        block = f"blocks.{number}.layers.0"
        linear.load_state_dict({"weight": tensors[f"{block}.weight"], "bias": tensors[f"{block}.bias"]})
        head.load_state_dict({"weight": tensors[f"lm_heads.{number}.weight"]})
        torch.testing.assert_close(said, head(states + nn.SiLU()(linear(states))))


def test_what_needs_a_model_of_the_draft_says_that_there_is_none(unify: Convert) -> None:
    folder = unify().output
    with pytest.raises(UsageError, match="drafts of type `medusa` are converted and validated here"):
        servable(folder)
    with pytest.raises(SpecConvertError, match="no model here for unified drafts of type 'medusa'"):
        load_draft(folder)
