"""What a format must not let pass: a tensor too few, too many or of another shape, a config with a hole."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from spec_convert.example import Example
from spec_convert.findings import Finding, errors
from spec_convert.plan import Plan
from spec_convert.testing.bench import Bench, what
from spec_convert.validation.validation import validate


class Damage:
    """Of `FormatContract`: what is asked of checkpoints that are not right."""

    format: str

    def test_each_required_tensor_is_missed(self, tmp_path: Path) -> None:
        """One that decides the layout must be missing in the unified config; what is made anew of others is not."""
        bench = Bench(self.format, tmp_path)
        whole = bench.plan()
        rows = [row for row in bench.layout(whole).table if not row.optional and not row.derived]
        for name in [*bench.example.shapes, *bench.example.values]:
            if not any(template.match(name) is not None for row in rows for template in row.sources):
                continue
            plan, findings = bench.look(without(bench.example, name))
            complete = plan is not None and plan.tensors == whole.tensors
            silent = plan is not None and not errors(findings) and plan.config == whole.config
            assert complete or not silent, (
                f"without `{name}` it converts as if nothing were missing: let its row be in the table whether the "
                "file has the tensor or not"
            )

    def test_each_other_shape_is_caught(self, tmp_path: Path) -> None:
        bench = Bench(self.format, tmp_path)
        dropped = set(bench.plan().dropped)
        for name, shape in bench.example.shapes.items():
            for at in range(len(shape)):
                if name in dropped or name in bench.example.values:
                    continue
                other = (*shape[:at], shape[at] + 1, *shape[at + 1 :])
                _, findings = bench.look(with_shape(bench.example, name, other))
                assert errors(findings), (
                    f"`{name}` is taken as {other}, too, and not only as {shape}: give its row a `shape=` in names "
                    "that config.json or another tensor fixes"
                )

    def test_each_shorter_vocabulary_map_is_caught(self, tmp_path: Path) -> None:
        bench = Bench(self.format, tmp_path)
        for name, values in bench.example.values.items():
            shorter = replace(bench.example, values={**bench.example.values, name: list(values)[:-1]})
            _, findings = bench.look(shorter)
            assert errors(findings), f"`{name}` is taken with {len(values) - 1} values instead of {len(values)}"

    def test_a_stranger_is_caught(self, tmp_path: Path) -> None:
        bench = Bench(self.format, tmp_path)
        deepest = max(bench.example.shapes, key=lambda name: (name.count("."), name))
        for name in ("stranger", "stranger.weight", f"{deepest}.stranger", f"{deepest.rpartition('.')[0]}.stranger"):
            _, findings = bench.look(with_shape(bench.example, name, (2, 2)))
            assert errors(findings), (
                f"a tensor `{name}` passes unseen: a row with `{{x}}` or `{{rest...}}` takes more than is meant"
            )

    def test_without_a_config_it_is_refused(self, tmp_path: Path) -> None:
        bench = Bench(self.format, tmp_path)
        (bench.write() / "config.json").unlink()
        assert validate(bench.folder, verifier=bench.verifier).has_errors, (
            "without a config.json it converts: what computing takes and no tensor shows (heads, norm epsilon, rope "
            "base) would be guessed; ask for it with `Facts.of(checkpoint)`, which refuses when there is none"
        )

    def test_each_key_of_the_config_is_missed_or_means_nothing(self, tmp_path: Path) -> None:
        """Without a key it is refused, or the plan is the same, or something is said. Never an exception."""
        bench = Bench(self.format, tmp_path)
        whole = bench.plan()
        usual = {(f.rule, f.where) for f in whole.findings}
        for path, config in without_each_key(bench.example.config):
            plan, findings = _look_without(bench, path, config)
            if plan is None or {(f.rule, f.where) for f in findings} - usual:
                continue
            assert what(plan) == what(whole), (
                f"without `{path}` in config.json another draft comes out, and nothing is said: ask for the key with "
                "`Facts.require`, or add a finding; where the key has a documented default, the example should have it"
            )


def _look_without(bench: Bench, path: str, config: Mapping[str, Any]) -> tuple[Plan | None, list[Finding]]:
    try:
        return bench.look(replace(bench.example, config=config))
    except Exception as reason:
        raise AssertionError(
            f"without `{path}` in config.json it fails with {type(reason).__name__}: {reason}; a checkpoint is refused "
            "with findings: `Facts.require` makes them"
        ) from reason


def without(example: Example, name: str) -> Example:
    """The example without one tensor."""
    shapes = {other: shape for other, shape in example.shapes.items() if other != name}
    values = {other: given for other, given in example.values.items() if other != name}
    return replace(example, shapes=shapes, values=values)


def with_shape(example: Example, name: str, shape: tuple[int, ...]) -> Example:
    """The example with one tensor more, or with another shape of one that it has."""
    return replace(example, shapes={**example.shapes, name: shape})


def without_each_key(config: Mapping[str, Any], where: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """The config without each of its keys in turn, those of nested objects included."""
    for key, value in config.items():
        yield where + key, {other: kept for other, kept in config.items() if other != key}
        if isinstance(value, dict):
            for path, inner in without_each_key(value, f"{where}{key}."):
                yield path, {**config, key: inner}
