"""What holds of every format and any sizes: no order matters, what is converted is valid, and no damage goes unseen."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from spec_convert import convert, validate
from spec_convert.checkpoint import Checkpoint
from spec_convert.detection import recognise
from spec_convert.findings import Finding, Level
from spec_convert.formats import Request
from spec_convert.open import open_checkpoint
from spec_convert.operations import Header
from spec_convert.plan import make_plan
from spec_convert.testing import tiny_verifier, write_example
from spec_convert.testing.tiny import example_of
from spec_convert.verifier import open_verifier
from spec_convert.writer import header_bytes

from .tiny import BUILT_IN


def bounded(examples: int) -> settings:
    return settings(
        max_examples=examples, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
    )


@st.composite
def sizes(draw: st.DrawFn) -> dict[str, int]:
    """Any sizes that a trainer could take; coincidences such as heads * head_dim = hidden included."""
    kv_heads, vocabulary = draw(st.integers(1, 3)), draw(st.integers(8, 60))
    return {
        "hidden": draw(st.integers(4, 24)),
        "inner": draw(st.integers(2, 40)),
        "heads": kv_heads * draw(st.integers(1, 3)),
        "kv_heads": kv_heads,
        "head_dim": 2 * draw(st.integers(1, 5)),
        "vocabulary": vocabulary,
        "draft_vocabulary": draw(st.integers(1, vocabulary - 1)),
        "layers": draw(st.integers(1, 3)),
        "verifier_layers": draw(st.integers(7, 40)),
    }


@dataclass(frozen=True)
class Pair:
    """A tiny checkpoint and its verifier."""

    draft: Path
    verifier: Path
    flags: Mapping[str, Any]  # of `convert`, that such a draft needs

    @property
    def unified(self) -> Path:
        return self.draft.with_name("unified")

    def converted(self) -> Path:
        return convert(self.draft, self.unified, verifier=self.verifier, **self.flags).output


def pair(root: Path, name: str, dtype: str = "F32", **changed: int) -> Pair:
    example = example_of(name, **changed)
    return Pair(
        write_example(example, root / "draft", dtype=dtype), tiny_verifier(root / "verifier", **changed), example.flags
    )


def in_words(findings: tuple[Finding, ...], *levels: Level) -> list[str]:
    return [f"{f.rule}: {f.where}: {f.message}" for f in findings if f.level in levels]


@pytest.mark.parametrize("name", BUILT_IN)
@bounded(5)
@given(data=st.data(), chosen=sizes())
def test_a_plan_does_not_depend_on_the_order_of_the_tensors(
    name: str, data: st.DataObject, chosen: dict[str, int]
) -> None:
    with TemporaryDirectory() as folder:
        made = pair(Path(folder), name, **chosen)
        checkpoint, request = open_checkpoint(made.draft), Request(verifier=open_verifier(made.verifier), **made.flags)
        order = data.draw(st.permutations(list(checkpoint.tensors)))
        shuffled = replace(checkpoint, tensors={tensor: checkpoint.tensors[tensor] for tensor in order})
        assert make_plan(recognise(shuffled), request).to_json() == make_plan(recognise(checkpoint), request).to_json()


@pytest.mark.parametrize("name", BUILT_IN)
@bounded(5)
@given(chosen=sizes(), dtype=st.sampled_from(["F32", "F16", "BF16", "F64"]))
def test_what_is_made_of_a_valid_checkpoint_is_valid_and_computes(
    name: str, chosen: dict[str, int], dtype: str
) -> None:
    with TemporaryDirectory() as folder:
        made = pair(Path(folder), name, dtype, **chosen)
        (checked,) = validate(made.converted(), verifier=made.verifier, level="forward").checked
        assert in_words(checked.findings, Level.ERROR, Level.WARNING) == []
        assert checked.reached == "forward"


# One header changed, and the file sound all the same: as another tool would have written it.
Contents = dict[str, tuple[Header, bytes]]


@pytest.fixture(scope="module", params=BUILT_IN)
def unified(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = pair(tmp_path_factory.mktemp("converted"), request.param, layers=2)
    return made.converted()


@pytest.fixture(scope="module", params=BUILT_IN)
def native(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pair(tmp_path_factory.mktemp("native"), request.param, layers=2).draft


def contents(checkpoint: Checkpoint) -> Contents:
    return {
        name: (Header(tensor.dtype, tensor.shape), checkpoint.read(name).tobytes())
        for name, tensor in checkpoint.tensors.items()
    }


def resized(header: Header, data: bytes) -> tuple[Header, bytes]:
    return header, (data + bytes(header.nbytes))[: header.nbytes]


NAMES = st.from_regex(r"[a-z_]{1,8}(\.[a-z0-9_]{1,8}){0,3}", fullmatch=True)
DTYPES = ("F64", "F32", "F16", "BF16", "I64", "I32", "I8", "U8", "BOOL")


def renamed(draw: st.DrawFn, held: Contents, name: str) -> Contents:
    new = draw(NAMES.filter(lambda text: text not in held) | st.just(f"model.{name}") | st.just(f"{name}.weight"))
    return {new if other == name else other: held[other] for other in held}


def dropped(draw: st.DrawFn, held: Contents, name: str) -> Contents:
    return {other: held[other] for other in held if other != name}


def added(draw: st.DrawFn, held: Contents, name: str) -> Contents:
    new = draw(NAMES.filter(lambda text: text not in held) | st.just(name.replace(".0.", ".7.") + ".copy"))
    return {**held, new: held[name]}


def another_dimension(draw: st.DrawFn, held: Contents, name: str) -> Contents:
    header, data = held[name]
    at = draw(st.integers(0, len(header.shape) - 1))
    size = draw(st.integers(0, 80).filter(lambda size: size != header.shape[at]))
    shape = (*header.shape[:at], size, *header.shape[at + 1 :])
    return {**held, name: resized(Header(header.dtype, shape), data)}


def another_rank(draw: st.DrawFn, held: Contents, name: str) -> Contents:
    header, data = held[name]
    shape = draw(st.sampled_from([(), (1, *header.shape), (*header.shape, 1)]))
    return {**held, name: resized(Header(header.dtype, shape), data)}


def another_dtype(draw: st.DrawFn, held: Contents, name: str) -> Contents:
    header, data = held[name]
    dtype = draw(st.sampled_from([dtype for dtype in DTYPES if dtype != header.dtype]))
    return {**held, name: resized(Header(dtype, header.shape), data)}


def swapped(draw: st.DrawFn, held: Contents, name: str) -> Contents:
    others = [other for other in held if held[other][0].shape != held[name][0].shape]
    other = draw(st.sampled_from(others))
    return {**held, name: held[other], other: held[name]}


MUTATIONS: tuple[Callable[[st.DrawFn, Contents, str], Contents], ...] = (
    renamed, dropped, added, another_dimension, another_rank, another_dtype, swapped,
)  # fmt: skip


def mutated(data: st.DataObject, folder: Path, changeable: Callable[[Checkpoint], list[str]]) -> Iterator[Path]:
    checkpoint = open_checkpoint(folder)
    name = data.draw(st.sampled_from(changeable(checkpoint)), label="tensor")
    change = data.draw(st.sampled_from(MUTATIONS), label="mutation")
    held = change(lambda strategy: data.draw(strategy, label="drawn"), contents(checkpoint), name)
    ordered = dict(sorted(held.items()))
    with TemporaryDirectory() as copy:
        for file in ("config.json", "conversion.json"):
            if (folder / file).exists():
                shutil.copy(folder / file, copy)
        head = header_bytes({name: header for name, (header, _) in ordered.items()})
        (Path(copy) / "model.safetensors").write_bytes(head + b"".join(raw for _, raw in ordered.values()))
        yield Path(copy)


@bounded(25)
@given(data=st.data())
def test_no_change_of_one_header_of_a_converted_directory_goes_unseen(unified: Path, data: st.DataObject) -> None:
    for folder in mutated(data, unified, sorted):
        (checked,) = validate(folder).checked
        assert in_words(checked.findings, Level.ERROR, Level.WARNING)


@bounded(25)
@given(data=st.data())
def test_no_change_of_one_required_tensor_of_a_native_checkpoint_goes_unseen(native: Path, data: st.DataObject) -> None:
    (usual,) = validate(native).checked
    for folder in mutated(data, native, required):
        assume(not marks_in_bytes(open_checkpoint(folder)))
        (checked,) = validate(folder).checked
        assert {(f.rule, f.where) for f in checked.findings} - {(f.rule, f.where) for f in usual.findings}


def required(checkpoint: Checkpoint) -> list[str]:
    """The tensors that its table must have. Whether there is an `fc.bias` decides between EAGLE-1 and HASS."""
    fmt = recognise(checkpoint).winner
    rows = [row for row in fmt.layout(checkpoint, Request()).table if not row.optional and not row.derived]
    templates = [template for row in rows for template in row.sources if row.text != "fc.bias"]
    return sorted(name for name in checkpoint if any(template.match(name) is not None for template in templates))


def marks_in_bytes(checkpoint: Checkpoint) -> bool:
    """Whether `t2d` is stored as numbers: the same marks, which are cast back without a word."""
    return "t2d" in checkpoint and checkpoint.tensors["t2d"].dtype == "U8"
