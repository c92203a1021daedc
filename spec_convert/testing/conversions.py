"""What a format makes of its example: a unified directory that validates clean, the same every time, and undone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from spec_convert.conversion import convert
from spec_convert.errors import Refused
from spec_convert.findings import errors
from spec_convert.mapping import apply
from spec_convert.tensor_map import Row
from spec_convert.testing.bench import Bench, bad, headers, run
from spec_convert.testing.tiny import example_of
from spec_convert.validation.validation import validate

if TYPE_CHECKING:
    import numpy as np

# Each alone, beside the usual sizes.
OTHER_SIZES = (
    {"hidden": 20}, {"inner": 24}, {"heads": 6}, {"kv_heads": 1}, {"head_dim": 8}, {"vocabulary": 50},
    {"draft_vocabulary": 12}, {"layers": 2}, {"verifier_layers": 13},
)  # fmt: skip


class Conversions:
    """Of `FormatContract`: what is asked of the result."""

    format: str

    def test_its_conversion_validates_and_computes(self, tmp_path: Path) -> None:
        _converts_clean(Bench(self.format, tmp_path), tmp_path / "unified")

    def test_other_sizes_convert_as_well(self, tmp_path: Path) -> None:
        usual = example_of(self.format)
        for number, sizes in enumerate(OTHER_SIZES):
            if example_of(self.format, **sizes) != usual:
                root = tmp_path / str(number)
                _converts_clean(Bench(self.format, root, **sizes), root / "unified", f"with {sizes} ")

    def test_half_precision_stays_half_precision(self, tmp_path: Path) -> None:
        bench = Bench(self.format, tmp_path)
        _converts_clean(bench, tmp_path / "unified", "in BF16 ", dtype="BF16")
        floats = {header.dtype for header in bench.plan(dtype="BF16").tensors.values() if header.dtype[0] in "BF"}
        assert floats - {"BOOL"} == {"BF16"}, f"weights of BF16 come out as {sorted(floats)}"

    def test_converting_twice_gives_the_same_bytes(self, tmp_path: Path) -> None:
        bench = Bench(self.format, tmp_path)
        bench.write()
        one, other = (_files(bench, tmp_path / name) for name in ("one", "other"))
        differ = sorted(name for name in one | other if one.get(name) != other.get(name))
        assert not differ, f"converted twice, {', '.join(differ)} differ: use no time and no random names"

    def test_its_table_takes_the_unified_tensors_back(self, tmp_path: Path) -> None:
        """Wherever every operation has an inverse. Tensors that have several spellings come back in the first one."""
        bench = Bench(self.format, tmp_path)
        plan = bench.plan()
        layout = bench.layout(plan)
        if not all(row.via.inverse for row in layout.table if row.targets and not row.derived):
            import pytest  # whoever runs a contract has it

            pytest.skip(f"an operation of `{self.format}` has no inverse")
        native = {tensor.name: plan.detection.checkpoint.read(tensor.name) for tensor in plan.used}
        unified = {name: array for step in plan.steps for name, array in plan.compute(step).items()}
        dtypes = {name: header.dtype for name, header in plan.tensors.items()}
        sizes = apply(layout.table, plan.detection.checkpoint.tensors, layout.sizes).sizes
        back = apply(layout.table.inverse, headers(unified, dtypes), sizes)
        assert not errors(back.findings), f"the inverse of the table fails: {bad(back.findings)}"
        returned, kinds = run(back.steps, unified)
        again, _ = run(apply(layout.table, headers(returned, kinds), sizes).steps, returned)
        assert _same(again, unified), f"there and back is another checkpoint: {_differing(again, unified)}"
        plain = {name: array for name, array in native.items() if not _has_spellings(layout.table.rows, name)}
        came_back = {name: returned[name] for name in plain if name in returned}
        assert _same(came_back, plain), f"these do not come back as they were: {_differing(came_back, plain)}"


def _converts_clean(bench: Bench, output: Path, how: str = "", *, dtype: str = "F32") -> None:
    try:
        convert(bench.write(dtype=dtype), output, verifier=bench.verifier, validate=True, **bench.example.flags)
    except Refused as refusal:
        raise AssertionError(f"converted {how}it is refused: {bad(refusal.findings)}") from refusal
    (checked,) = validate(output, verifier=bench.verifier, level="forward").checked
    assert not bad(checked.findings), f"converted {how}it is not valid: {bad(checked.findings)}"


def _files(bench: Bench, output: Path) -> dict[str, bytes]:
    convert(bench.folder, output, verifier=bench.verifier, **bench.example.flags)
    return {file.name: file.read_bytes() for file in output.iterdir()}


def _has_spellings(rows: tuple[Row, ...], name: str) -> bool:
    return any(row.spelling and any(t.match(name) is not None for t in row.sources) for row in rows)


def _same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    return not _differing(one, other)


def _differing(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> list[str]:
    """The names whose shape or bytes are not the same in both."""
    return sorted(
        name
        for name in one.keys() | other.keys()
        if name not in one
        or name not in other
        or one[name].shape != other[name].shape
        or one[name].tobytes() != other[name].tobytes()
    )
