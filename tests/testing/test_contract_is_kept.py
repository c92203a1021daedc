"""The contract itself: a sound format passes all of it, and each thing that can be wrong fails with words about it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spec_convert.checkpoint import Checkpoint
from spec_convert.evidence import weigh
from spec_convert.formats import Described, Draft, Format, Layout, Request
from spec_convert.operations import COPY, Cast, Header, Identity
from spec_convert.plugins.families import eagle1
from spec_convert.registry import registry
from spec_convert.tensor_map import TensorMap, drop, keep, move
from spec_convert.testing import Example, FormatContract, Sizes, shapes_of

from .pig import PIG, TABLE, describe, example, layout

TESTS = sorted(name for name in dir(FormatContract) if name.startswith("test_"))


@pytest.fixture
def keeps(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[Format, str], None]:
    """Run one test of the contract on a format, as if it had been installed."""

    def run(fmt: Format, test: str) -> None:
        monkeypatch.setitem(registry().formats, fmt.name, fmt)
        monkeypatch.setitem(registry()._providers, fmt.name, "pigs 1.0")
        contract = FormatContract()
        contract.format = fmt.name
        method = getattr(contract, test)
        method(*([tmp_path] if "tmp_path" in method.__code__.co_varnames else []))

    return run


@pytest.mark.parametrize("test", TESTS)
def test_a_sound_format_keeps_all_of_it(test: str, keeps: Callable[[Format, str], None]) -> None:
    keeps(PIG, test)


def test_pytest_collects_all_of_it_in_a_subclass(tmp_path: Path) -> None:
    lines = ["from spec_convert.testing import FormatContract", "class TestPig(FormatContract):", "    format = 'pig'"]
    (tmp_path / "test_pig.py").write_text("\n".join(lines) + "\n")
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", str(tmp_path)]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=True)
    assert sorted(line.split("::")[-1] for line in ran.stdout.splitlines() if "::" in line) == TESTS


def with_table(table: TensorMap) -> dict[str, Any]:
    """The same rows in the table and in the layout, and an example with all of their tensors."""

    def chosen(checkpoint: Checkpoint, request: Request) -> Layout:
        return replace(layout(checkpoint, request), table=table)

    return {"tables": {"": table}, "layout": chosen}


def with_config(change: Callable[[Draft, dict[str, Any]], dict[str, Any]]) -> dict[str, Any]:
    """The unified config, changed."""

    def changed(draft: Draft) -> Described:
        described = describe(draft)
        assert described.config is not None
        return replace(described, config={**described.config, **change(draft, dict(described.config))})

    return {"describe": changed}


def with_layer(change: Callable[[Draft], dict[str, Any]]) -> dict[str, Any]:
    def changed(draft: Draft, config: dict[str, Any]) -> dict[str, Any]:
        layer = config["transformer_layer_config"] | change(draft)
        return {"transformer_layer_config": layer, "model": config["model"] | change(draft)}

    return with_config(changed)


def replaced(name: str, **changes: Any) -> TensorMap:
    """The table with one row changed."""
    return TensorMap(*(replace(row, **changes) if row.text == name else row for row in TABLE))


def of_fixed_sizes(sizes: Sizes) -> Example:
    return example(Sizes())


def with_eagles_names(sizes: Sizes) -> Example:
    return Example(config=example(sizes).config, shapes=shapes_of(eagle1.BODY, sizes))


def with_a_wrong_count(sizes: Sizes) -> Example:
    made = example(sizes)
    return replace(made, config={**made.config, "num_hidden_layers": 7})


def with_a_map(sizes: Sizes) -> Example:
    return replace(example(sizes), values={"pig.map": [3, 1, 2]})


def in_full_precision(checkpoint: Checkpoint, request: Request) -> Layout:
    chosen = layout(checkpoint, request)
    half = checkpoint.tensors["pig.fc.weight"].dtype == "BF16"
    return replace(chosen, table=replaced("pig.fc.weight", via=Cast("F32", "BF16"))) if half else chosen


def what_is_there(checkpoint: Checkpoint, request: Request) -> Layout:
    """A layout that takes what it finds."""
    norm = "pig.layers.0.post_attention_layernorm.weight"
    without = shorn(TABLE, "pig.layers.0.{n:post_attention_layernorm}.weight")
    chosen = layout(checkpoint, request)
    return chosen if norm in checkpoint else replace(chosen, table=without)


def shorn(table: TensorMap, name: str) -> TensorMap:
    assert name in [row.text for row in table]
    return TensorMap(*(row for row in table if row.text != name))


def guessing(facts: Mapping[str, Any]) -> dict[str, Any]:
    """A format that takes these for facts wherever config.json does not say."""

    def completed(checkpoint: Checkpoint) -> Checkpoint:
        return replace(checkpoint, config={**facts, **(checkpoint.config or {})})

    def lay(checkpoint: Checkpoint, request: Request) -> Layout:
        return layout(completed(checkpoint), request)

    def say(draft: Draft) -> Described:
        return describe(replace(draft, checkpoint=completed(draft.checkpoint)))

    return {"layout": lay, "describe": say}


@dataclass(frozen=True)
class Halved:
    """An operation whose inverse is wrong."""

    name: str = "halve"

    @property
    def inverse(self) -> Identity:
        return COPY

    def outputs(self, sources: Any, size: Any) -> list[Header]:
        return list(sources)

    def run(self, sources: Any, outputs: Any) -> list[np.ndarray]:
        return [array / np.float32(2) for array in sources]


runs = count()
INSTALLED = "test_the_format_is_installed_and_has_an_example"
ROWS = "test_every_row_that_must_occur_claims_a_tensor"
TAKEN = "test_it_is_taken_for_this_format_and_for_no_other"
LEAVES = "test_it_leaves_the_example_of_every_other_format_to_its_owner"
LOOKING = "test_looking_at_it_raises_nothing_and_claims_no_empty_folder"
KEYS = "test_each_key_of_the_config_is_missed_or_means_nothing"
FAULTS: dict[str, tuple[str, dict[str, Any], str]] = {
    "no example": (INSTALLED, {"example": None}, "give the Format `pig` an `example=`"),
    "an example of fixed sizes": (
        "test_the_example_heeds_the_sizes", {"example": of_fixed_sizes}, "does not change with `sizes.hidden`",
    ),
    "no table": ("test_its_tables_are_tables", {"tables": {}}, "`tables` is empty"),
    "a list for a table": ("test_its_tables_are_tables", {"tables": {"a": [*TABLE]}}, "is no TensorMap"),
    "a dead row": (ROWS, with_table(TABLE + TensorMap(keep("pig.never", shape="hidden"))), "pig.never"),
    "a claim that does not fit": (
        TAKEN, {"recognise": lambda checkpoint: weigh(required={"a cow": "cow.weight" in checkpoint})}, "a cow",
    ),
    "another format's checkpoint": (
        TAKEN,
        {
            "example": with_eagles_names,
            "recognise": lambda seen: weigh(required={"fc": "fc.weight" in seen}, supporting={"a tail": False}),
        },
        "`eagle` claim the example as well",
    ),
    "another format's checkpoint beside its own": (
        LEAVES, {"recognise": lambda seen: weigh(required={"weights": bool(seen.tensors)})},
        "the example of `.*` .* is claimed as well",
    ),
    "a tensor that others have not": (
        LEAVES, {"recognise": lambda seen: weigh(required={"a pig": bool(seen.tensors["pig.fc.weight"].shape)})},
        "at an example of `.*` `recognise` fails with KeyError: 'pig.fc.weight'",
    ),
    "a config of another type": ("test_its_plan_is_clean", {"produces": "eagle3"}, "the format `produces` `eagle3`"),
    "a key that must be there to look": (
        LOOKING, {"features": lambda checkpoint: {"a": checkpoint.config["hidden_size"]}}, "config.json .* TypeError",
    ),
    "a claim of everything": (LOOKING, {"recognise": lambda c: weigh(required={"x": True})}, "without any tensor"),
    "features that are no data": (
        "test_its_features_are_json", {"features": lambda checkpoint: {"a": {1, 2}}}, "not JSON serializable",
    ),
    "a warning": ("test_its_plan_is_clean", {"example": with_a_wrong_count}, "layer-count-differs"),
    "a config that follows the file's order": (
        "test_its_plan_does_not_depend_on_the_order_of_the_tensors",
        with_config(lambda draft, config: {"architectures": [next(iter(draft.checkpoint))]}),
        "order of the tensors",
    ),
    "a draft that does not compute": (
        "test_its_conversion_validates_and_computes", with_layer(lambda draft: {"hidden_act": "oink"}), "it is refused",
    ),
    "a size written as a number": (
        "test_other_sizes_convert_as_well", with_layer(lambda draft: {"intermediate_size": 40}), "'inner': 24",
    ),
    "a cast that nobody asked for": (
        "test_half_precision_stays_half_precision", {"layout": in_full_precision}, "come out as .*F32",
    ),
    "a number of its own each time": (
        "test_converting_twice_gives_the_same_bytes",
        with_config(lambda draft, config: {"speculators_version": str(next(runs))}),
        "config.json",
    ),
    "a wrong inverse": (
        "test_its_table_takes_the_unified_tensors_back",
        with_table(replaced("pig.fc.weight", via=Halved())),
        "there and back is another checkpoint: .'fc.weight'",
    ),
    "a layout that takes what it finds": (
        "test_each_required_tensor_is_missed", {"layout": what_is_there}, "post_attention_layernorm",
    ),
    "a row without a shape": (
        "test_each_other_shape_is_caught",
        with_table(replaced("pig.layers.0.{n:post_attention_layernorm}.weight", laws=())),
        "give its row a `shape=`",
    ),
    "a map of any length": (
        "test_each_shorter_vocabulary_map_is_caught",
        {"example": with_a_map} | with_table(TABLE + TensorMap(move("pig.map", "d2t"))),
        "`pig.map` is taken with 2 values instead of 3",
    ),
    "a row that takes everything": (
        "test_a_stranger_is_caught",
        with_table(TABLE + TensorMap(drop("stranger.{rest...}", because="not needed"))),
        "`stranger.weight` passes unseen",
    ),
    "facts that are guessed": (
        "test_without_a_config_it_is_refused", guessing(example(Sizes()).config), "without a config.json it converts",
    ),
    "a default of its own": (KEYS, guessing({"rms_norm_eps": 1e-3}), "without `rms_norm_eps` .* nothing is said"),
    "a key that must be there": (
        KEYS, with_config(lambda draft, config: {"tie_word_embeddings": draft.checkpoint.config["mlp_bias"]}),
        "without `mlp_bias` in config.json it fails with KeyError",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("test", "changes", "says"), FAULTS.values(), ids=FAULTS)
def test_each_fault_fails_with_words_about_it(
    test: str, changes: dict[str, Any], says: str, keeps: Callable[[Format, str], None]
) -> None:
    with pytest.raises(AssertionError, match=says):
        keeps(replace(PIG, **changes), test)


def test_there_is_a_fault_for_each_test_of_the_contract() -> None:
    assert sorted({test for test, _, _ in FAULTS.values()}) == TESTS


@pytest.mark.parametrize("test", [TAKEN, LEAVES])
def test_somebody_elses_broken_plugin_is_not_held_against_a_sound_one(
    test: str, keeps: Callable[[Format, str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = replace(PIG, name="cow", recognise=lambda checkpoint: checkpoint.tensors["cow.weight"])
    monkeypatch.setitem(registry().formats, "cow", broken)
    monkeypatch.setitem(registry()._providers, "cow", "cows 1.0")
    keeps(PIG, test)
