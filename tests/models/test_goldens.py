"""Every published layout, converted, against outputs that its original authors' code computed from the same files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from spec_convert import convert, detect, load_draft
from spec_convert.conversion import Conversion

FIXTURES = Path(__file__).parents[1] / "goldens" / "fixtures"
CASES = sorted(case.name for case in FIXTURES.iterdir() if case.is_dir())
EAGLE3 = [name for name in CASES if name.startswith("eagle3")]
DOUBLE_NORM = "eagle3_modelopt_double_norm"
# What that file computes in training is not what any server computes, and nothing in the file says so.
PLAIN = [name for name in CASES if name != DOUBLE_NORM]
# Their weights were rounded after the golden was computed; all others reproduce it to the last bits of float32.
ROUNDED = {"eagle1_bf16", "eagle1_fp16"}
EXACT = 2e-5


class Case:
    """One fixture, its conversion, and the golden values."""

    def __init__(self, name: str, output: Path) -> None:
        root = FIXTURES / name
        self.checkpoint, self.verifier = root / "checkpoint", root / "verifier"
        self.expect: dict[str, Any] = json.loads((root / "expect.json").read_text())
        self.golden = load_file(root / "golden.safetensors")
        self.tolerance: float = self.expect["tolerance"] if name in ROUNDED else EXACT
        self.conversion: Conversion = convert(self.checkpoint, output, verifier=self.verifier)
        self.config: dict[str, Any] = json.loads((output / "config.json").read_text())
        self.draft = load_draft(output)

    @torch.no_grad()
    def run(self, *, states: str = "hidden_states") -> Any:
        fed_back = states != "hidden_states"
        return self.draft(self.golden["input_ids"], self.golden[states], self.golden["position_ids"], fed_back=fed_back)


@pytest.fixture(scope="module")
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    return Case(request.param, tmp_path_factory.mktemp("golden") / request.param)


def each(names: list[str]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", names, indirect=True, scope="module")


def distance(ours: Tensor, theirs: Tensor) -> float:
    return (ours - theirs).abs().max().item()


@each(CASES)
def test_the_layout_is_recognised(case: Case) -> None:
    assert detect(case.checkpoint).format == case.expect["format"] == case.conversion.format


@each(PLAIN)
def test_the_logits_are_the_authors(case: Case) -> None:
    assert distance(case.run().logits, case.golden["expected_logits"]) <= case.tolerance


@each(PLAIN)
def test_the_state_for_the_next_step_is_the_authors(case: Case) -> None:
    assert distance(case.run().hidden_states, case.golden["expected_hidden"]) <= case.tolerance


@each([name for name in PLAIN if name in EAGLE3])
def test_the_second_step_is_the_authors(case: Case) -> None:
    second = case.run(states="expected_hidden").hidden_states
    assert distance(second, case.golden["step2_hidden"]) <= case.tolerance


@each([name for name in PLAIN if name in EAGLE3])
def test_logits_lie_where_the_authors_put_them_in_the_target_vocabulary(case: Case) -> None:
    ours, theirs = case.draft.to_target_vocabulary(case.run().logits), case.golden["expected_logits_target"]
    assert torch.equal(ours.isinf(), theirs.isinf())
    assert distance(ours[~ours.isinf()], theirs[~ours.isinf()]) <= case.tolerance


@each(CASES)
def test_a_named_verifier_gives_the_same_draft_as_the_one_in_the_config(case: Case) -> None:
    named = load_draft(case.conversion.output, verifier=case.verifier)
    with torch.no_grad():
        theirs = named(case.golden["input_ids"], case.golden["hidden_states"], case.golden["position_ids"])
    assert torch.equal(case.run().logits, theirs.logits)


@each(EAGLE3)
def test_the_eagle3_facts_are_written_into_the_config(case: Case) -> None:
    layer, expect = case.config["transformer_layer_config"], case.expect
    assert case.config["eagle_aux_hidden_state_layer_ids"] == expect["aux_layer_ids_expected_in_unified"]
    assert layer["num_aux_hidden_states"] == len(expect["aux_layer_ids_expected_in_unified"])
    for key in ("norm_before_residual", "norm_output", "draft_vocab_size"):
        assert case.config[key] == expect[key], key
    assert case.config["fc_norm"] == expect.get("fc_norm", False)
    assert case.config["target_hidden_size"] == expect.get("target_hidden_size")
    assert layer["head_dim"] == expect.get("head_dim", layer["hidden_size"] // layer["num_attention_heads"])


@each(EAGLE3)
def test_the_vocabulary_map_is_written_exactly_when_the_vocabulary_is_reduced(case: Case) -> None:
    reduced = case.config["draft_vocab_size"] < case.config["transformer_layer_config"]["vocab_size"]
    assert {"d2t", "t2d"} & set(case.conversion.plan.tensors) == ({"d2t", "t2d"} if reduced else set())


@each([name for name in CASES if name not in EAGLE3 and name != "eagle_mlp_beginner"])
def test_the_eagle_facts_are_written_into_the_config(case: Case) -> None:
    assert case.config["fusion_bias"] == case.expect["fusion_bias"]
    assert case.config["layernorms"] == case.expect["layernorms"]
    assert case.config["transformer_layer_config"]["qkv_bias"] == case.expect.get("qkv_bias", False)
    assert "bias" not in case.config["transformer_layer_config"]


@each([DOUBLE_NORM])
def test_a_draft_trained_with_a_second_norm_is_converted_with_a_warning(case: Case) -> None:
    assert "trainer-differs-from-servers" in {finding.rule for finding in case.conversion.findings}
    assert distance(case.run().hidden_states, case.golden["expected_hidden"]) > 100 * case.expect["tolerance"]


@each(["hass_llama3"])
def test_the_fusion_bias_of_hass_is_not_dropped(case: Case) -> None:
    assert distance(case.run().hidden_states, case.golden["dropped_bias_hidden"]) > 100 * case.expect["tolerance"]
