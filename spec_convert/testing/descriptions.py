"""What a format says of its example: it is found, nothing of its table is dead, and its plan is clean."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from spec_convert.checkpoint import Checkpoint
from spec_convert.conversion import convert
from spec_convert.detection import ask, ask_all, recognise
from spec_convert.errors import Refused
from spec_convert.evidence import Evidence
from spec_convert.example import Example
from spec_convert.findings import errors
from spec_convert.open import open_checkpoint
from spec_convert.registry import registry
from spec_convert.tensor_map import Row, TensorMap
from spec_convert.testing.bench import Bench, bad, what
from spec_convert.testing.tiny import example_of, write_example


class Recognition:
    """Of both contracts: the example is found, by its own format and by no other."""

    format: str

    def test_the_format_is_installed_and_has_an_example(self) -> None:
        assert self.format in registry().formats, (
            f"`{self.format}` is not installed: `spec-convert plugins` says why a plugin was left out"
        )
        assert registry()[self.format].example is not None, (
            f"give the Format `{self.format}` an `example=`: a function from Sizes to Example, with the config that "
            "its publisher really writes; `spec_convert.testing.shapes_of` makes the shapes of the table"
        )

    def test_the_example_heeds_the_sizes(self) -> None:
        usual = example_of(self.format)
        for size, value in {"hidden": 20, "vocabulary": 48}.items():
            assert example_of(self.format, **{size: value}) != usual, (
                f"the example does not change with `sizes.{size}`: write no number where a size is meant"
            )

    def test_it_is_taken_for_this_format_and_for_no_other(self, tmp_path: Path) -> None:
        bench = Bench(self.format, tmp_path)
        checkpoint = open_checkpoint(bench.write())
        asked = ask_all(checkpoint, registry())
        ours = _said(self.format, checkpoint)
        assert ours.confidence, f"`recognise` does not take the example: it fails on {'; '.join(ours.against)}"
        claims = {name: said.confidence for name, said in asked.items() if name != self.format and said.confidence}
        beaten = self.format not in asked  # by a format that converts, whatever its confidence
        rivals = sorted(name for name, claim in claims.items() if beaten or claim >= ours.confidence)
        assert not rivals, (
            f"{' and '.join(f'`{name}`' for name in rivals)} claim the example as well: require in `recognise` what "
            "tells the formats apart"
        )

    def test_it_leaves_the_example_of_every_other_format_to_its_owner(self, tmp_path: Path) -> None:
        """An owner that cannot look at its own example is that plugin's fault; one that only recognises may lose it."""
        known = registry()
        converts = known[self.format].unconverted is None
        others = {name: fmt for name, fmt in known.formats.items() if fmt.example and name != self.format}
        for name in sorted(name for name, fmt in others.items() if not (converts and fmt.unconverted)):
            checkpoint = open_checkpoint(write_example(example_of(name), tmp_path / name))
            ours, owner = _said(self.format, checkpoint), _said(name, checkpoint)
            assert not ours.failure, (
                f"at an example of `{name}` `recognise` fails with {ours.failure}; it sees every checkpoint there is: "
                "use `Checkpoint.get` and `.shape`, which give None"
            )
            assert not owner.confidence or ours.confidence < owner.confidence, (
                f"the example of `{name}` (from {known.provider(name)}) is claimed as well, with {ours.confidence:g} "
                f"against {owner.confidence:g}: require in `recognise` what tells the formats apart"
            )

    def test_looking_at_it_raises_nothing_and_claims_no_empty_folder(self, tmp_path: Path) -> None:
        """`recognise` and `features` also see checkpoints without a config.json, and those that hold nothing."""
        bench = Bench(self.format, tmp_path)
        checkpoint = open_checkpoint(bench.write())
        nothing = replace(checkpoint, tensors={}, config=None)
        lacking = {"config.json": replace(checkpoint, config=None), "tensors": replace(checkpoint, tensors={})}
        for what_lacks, seen in (lacking | {"tensors and config.json": nothing}).items():
            try:
                bench.fmt.recognise(seen)
                bench.fmt.features(seen)
            except Exception as reason:
                raise AssertionError(
                    f"on a checkpoint without {what_lacks} `recognise` or `features` fails with "
                    f"{type(reason).__name__}: {reason}; they see every checkpoint there is: use `Checkpoint.get` and "
                    "`.shape`, which give None"
                ) from reason
        assert not bench.fmt.recognise(nothing).confidence, "`recognise` claims a checkpoint without any tensor"

    def test_its_features_are_json(self, tmp_path: Path) -> None:
        detection = recognise(open_checkpoint(Bench(self.format, tmp_path).write()))
        try:
            json.dumps(dict(detection.features), allow_nan=False)
        except (TypeError, ValueError) as reason:
            raise AssertionError(f"`features` must be plain data for `detect --json`: {reason}") from reason


class Descriptions(Recognition):
    """Of `FormatContract`: what is asked of the checkpoint as it is."""

    def test_its_tables_are_tables(self) -> None:
        fmt = registry()[self.format]
        assert fmt.tables, "`tables` is empty: list every table that `layout` chooses from, for `spec-convert formats`"
        for name, table in fmt.tables.items():
            assert isinstance(table, TensorMap), f"`tables[{name!r}]` is no TensorMap"

    def test_every_row_that_must_occur_claims_a_tensor(self, tmp_path: Path) -> None:
        """In a checkpoint of one layer, or in one of two."""
        dead: set[Row] | None = None
        for layers in (1, 2):
            bench = Bench(self.format, tmp_path / str(layers), layers=layers)
            plan = bench.plan()
            unclaimed = _unclaimed(bench.layout(plan).table, list(plan.detection.checkpoint))
            dead = unclaimed if dead is None else dead & unclaimed
        shown = ", ".join(sorted(row.text for row in dead or ()))
        assert not shown, (
            f"rows that no tensor of the example fits: {shown}; correct their spelling, add such tensors to the "
            "example, or say `optional=True`"
        )

    def test_its_plan_is_clean(self, tmp_path: Path) -> None:
        bench = Bench(self.format, tmp_path)
        plan, warned = bench.plan(), bench.example.warned
        said = bad(plan.findings, but=warned)
        assert not said, f"the example must convert without a word: {said}"
        unsaid = sorted(warned - {finding.rule for finding in plan.findings})
        assert not unsaid, f"the example claims warnings that nobody gives: {', '.join(unsaid)}"
        assert plan.config is not None, "`describe` gave no config and no finding that says why"
        produces, kind = registry()[self.format].produces, plan.config["speculators_model_type"]
        assert produces in ("", kind), f"the config is of type `{kind}`, but the format `produces` `{produces}`"

    def test_its_plan_does_not_depend_on_the_order_of_the_tensors(self, tmp_path: Path) -> None:
        bench = Bench(self.format, tmp_path)
        usual = what(bench.plan())
        for order in (sorted(bench.example.shapes), sorted(bench.example.shapes, reverse=True)):
            plan = bench.plan(_ordered(bench.example, order))
            assert what(plan) == usual, "the plan depends on the order of the tensors in the file"


class Refusals:
    """Of `RecognitionContract`: what is asked of a checkpoint that is not converted."""

    format: str

    def test_it_is_refused_with_a_reason_and_what_to_do(self, tmp_path: Path) -> None:
        bench = Bench(self.format, tmp_path)
        assert bench.fmt.unconverted is not None, f"`{self.format}` is converted: its contract is `FormatContract`"
        plan, findings = bench.look(bench.example)
        assert plan is None or errors(findings), "`unconverted` is given, and yet it is converted"
        assert all(finding.message and finding.hint for finding in errors(findings)), "a refusal without a hint"

    def test_what_detection_shows_says_so_too(self, tmp_path: Path) -> None:
        features = recognise(_opened(Bench(self.format, tmp_path))).features
        assert features["converted"] is False
        assert features["because"]
        assert features["instead"]

    def test_it_is_refused_before_a_verifier_is_asked_for(self, tmp_path: Path) -> None:
        bench = Bench(self.format, tmp_path)
        try:
            convert(bench.write(), tmp_path / "unified")
        except Refused:
            return
        raise AssertionError("it was converted")


def _opened(bench: Bench) -> Checkpoint:
    return open_checkpoint(bench.write())


def _said(name: str, checkpoint: Checkpoint) -> Evidence:
    """Asked as detection asks: a plugin that breaks has not answered, and nobody else is to blame."""
    return ask(registry()[name], registry().provider(name), checkpoint)


def _ordered(example: Example, names: list[str]) -> Example:
    return replace(example, shapes={name: example.shapes[name] for name in names})


def _unclaimed(table: TensorMap, names: list[str]) -> set[Row]:
    """The rows that must occur and fit none of the names; of several spellings one is enough."""
    needed = [row for row in table if not row.optional and not row.derived]
    seen = {row for row in needed if any(t.match(name) is not None for t in row.sources for name in names)}
    spelt = {row.spelling for row in seen if row.spelling}
    return {row for row in needed if row not in seen and row.spelling not in spelt}
