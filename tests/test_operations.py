"""Operations on real arrays: casts round as torch rounds, and what an operation does its inverse undoes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from spec_convert.operations import (
    COPY,
    AbsoluteFromOffsets,
    Cast,
    Fuse,
    Header,
    Membership,
    OffsetsFromAbsolute,
    RotaryHalves,
    Split,
    Then,
)

TORCH = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
BITS = {"F64": np.uint64, "F32": np.uint32, "F16": np.uint16, "BF16": np.uint16}
BITS32 = st.integers(0, 2**32 - 1)
# Signed zeros, infinities, NaNs with little and much payload, denormals, and the halves that round to even.
ODD32 = [
    *(0x00000000, 0x80000000, 0x7F800000, 0xFF800000, 0x7F800001, 0x7FFFFFFF, 0xFFFFFFFF, 0x00000001, 0x807FFFFF),
    *(0x3F808000, 0x3F818000, 0x3F808001, 0x3F807FFF, 0x3F801000, 0x3F803000, 0x33000000, 0x33000001, 0x387FC000),
]


def cast(bits: np.ndarray, source: str, to: str) -> tuple[np.ndarray, np.ndarray]:
    """The bits of our result and of torch's."""
    stored = bits.view(np.uint16) if source == "BF16" else bits.view(f"<f{bits.itemsize}")
    (ours,) = Cast(to, source).run([stored], [Header(to, bits.shape)])
    signed = bits.view(f"<i{bits.itemsize}").copy()
    theirs = torch.from_numpy(signed).view(TORCH[source]).to(TORCH[to])
    as_integers = theirs.view(torch.int16 if theirs.itemsize == 2 else torch.int32).numpy()
    return ours.view(BITS[to]), as_integers.view(BITS[to])


def assert_same_numbers(ours: np.ndarray, theirs: np.ndarray, dtype: str) -> None:
    """Equal bit by bit, but for NaN: which of the many NaNs torch writes depends on the processor."""
    nan = is_nan(theirs, dtype)
    assert (is_nan(ours, dtype) == nan).all()
    assert (ours[~nan] == theirs[~nan]).all()


def is_nan(bits: np.ndarray, dtype: str) -> np.ndarray:
    limit = {"F32": 0x7F800000, "BF16": 0x7F80, "F16": 0x7C00}[dtype]
    return (bits & (0x7FFFFFFF if dtype == "F32" else 0x7FFF)) > limit


@pytest.mark.parametrize(("to", "largest"), [("BF16", 0x7F7F7FFF), ("F16", 0x477FEFFF)])
@given(bits=st.lists(BITS32, min_size=1, max_size=40))
@example(bits=ODD32)
def test_casting_down_rounds_as_torch_does(to: str, largest: int, bits: list[int]) -> None:
    known = [b for b in bits if b & 0x7FFFFFFF <= largest or b & 0x7F800000 == 0x7F800000] or [largest]
    ours, theirs = cast(np.array([*known, largest], np.uint32), "F32", to)
    assert_same_numbers(ours, theirs, to)


@pytest.mark.parametrize("source", ["BF16", "F16"])
def test_casting_up_is_exact_for_all_numbers_there_are(source: str) -> None:
    ours, theirs = cast(np.arange(2**16, dtype=np.uint16), source, "F32")
    assert_same_numbers(ours, theirs, "F32")


@pytest.mark.parametrize("source", ["BF16", "F16"])
def test_casting_up_and_back_gives_every_number_back(source: str) -> None:
    bits = np.arange(2**16, dtype=np.uint16)
    up, back = Cast("F32", source), Cast("F32", source).inverse
    stored = bits if source == "BF16" else bits.view("<f2")
    (widened,) = up.run([stored], [])
    (narrow,) = back.run([widened], [])
    assert_same_numbers(narrow.view(np.uint16), bits, source)


@pytest.mark.parametrize(
    ("to", "value"), [("F16", 65520.0), ("F16", -1e30), ("BF16", float(np.finfo(np.float32).max)), ("F32", 1e300)]
)
def test_a_number_that_would_become_infinite_is_refused(to: str, value: float) -> None:
    source = "F64" if to == "F32" else "F32"
    stored = np.array([1.0, value], "<f8" if source == "F64" else "<f4")
    with pytest.raises(ValueError, match="too large for"):
        Cast(to, source).run([stored], [])


@pytest.mark.parametrize("to", ["F16", "BF16"])
def test_a_single_number_is_cast_like_any_other(to: str) -> None:
    (result,) = Cast(to, "F32").run([np.array(np.nan, "<f4")], [Header(to, ())])
    assert result.shape == ()
    assert len(result.tobytes()) == 2


def test_ones_and_zeros_become_truth_and_come_back() -> None:
    marks = np.array([0, 1, 1, 0], np.uint8)
    (truth,) = Cast("BOOL", "U8").run([marks], [])
    assert truth.dtype == np.bool_
    (back,) = Cast("BOOL", "U8").inverse.run([truth], [])
    assert back.tobytes() == marks.tobytes()


@pytest.mark.parametrize("odd", [2, 255, -1])
def test_a_mark_that_is_neither_is_refused(odd: int) -> None:
    with pytest.raises(ValueError, match="other than 0 and 1"):
        Cast("BOOL", "I16").run([np.array([0, 1, odd], np.int16)], [])


def test_a_cast_refuses_another_dtype_than_its_own() -> None:
    with pytest.raises(ValueError, match="is F32, expected F16"):
        Cast("F32", "F16").outputs([Header("F32", (1,))], int)


@given(st.sets(st.integers(0, 500), min_size=1))
def test_offsets_point_at_the_tokens_that_the_absolute_ids_name(tokens: set[int]) -> None:
    absolute = np.array(sorted(tokens))
    (offsets,) = OffsetsFromAbsolute().run([absolute], [])
    assert [row + offset for row, offset in enumerate(offsets)] == sorted(tokens)
    (back,) = AbsoluteFromOffsets().run([offsets], [])
    assert (back == absolute).all()
    (members,) = Membership().run([offsets], [Header("BOOL", (501,))])
    assert set(np.flatnonzero(members)) == tokens


def test_the_inverses_of_the_two_conventions_are_each_other() -> None:
    assert OffsetsFromAbsolute().inverse == AbsoluteFromOffsets()
    assert AbsoluteFromOffsets().inverse == OffsetsFromAbsolute()


@pytest.mark.parametrize("offsets", [[-1, 0], [0, 9]])
def test_offsets_that_leave_the_vocabulary_mark_nothing(offsets: list[int]) -> None:
    with pytest.raises(ValueError, match="outside the vocabulary of 4"):
        Membership().run([np.array(offsets)], [Header("BOOL", (4,))])


def test_fused_matrices_are_cut_where_they_were_joined() -> None:
    sizes = {"heads*head_dim": 4, "kv": 2}
    fused = Fuse(("heads*head_dim", "kv", "kv"))
    parts = [np.arange(rows * 3, dtype=np.float32).reshape(rows, 3) + rows for rows in (4, 2, 2)]
    headers = [Header("F32", part.shape) for part in parts]
    (whole,) = fused.run(parts, fused.outputs(headers, sizes.__getitem__))
    assert whole.shape == (8, 3)
    outputs = fused.inverse.outputs([Header("F32", whole.shape)], sizes.__getitem__)
    assert outputs == headers
    back = fused.inverse.run([whole], outputs)
    assert [part.tobytes() for part in back] == [part.tobytes() for part in parts]
    assert fused.inverse.inverse == fused


@pytest.mark.parametrize(
    "headers",
    [
        [Header("F32", (4, 3)), Header("F16", (2, 3))],
        [Header("F32", (4, 3)), Header("F32", (2, 5))],
        [Header("F32", (4, 3)), Header("F32", ())],
    ],
)
def test_parts_of_different_kinds_are_not_fused(headers: list[Header]) -> None:
    with pytest.raises(ValueError, match="part"):
        Fuse(("a", "b")).outputs(headers, int)


def test_heads_rotated_in_pairs_have_the_same_products_when_they_are_rotated_in_halves() -> None:
    """Angles that differ by head row, on vectors reordered as the rows of a matrix are."""
    query, key = np.random.default_rng(0).standard_normal((2, 3, 6))  # [heads, width]
    angles = np.array([0.3, 1.1, 2.0])
    halves = RotaryHalves(6)
    moved = [halves.run([x.reshape(-1)], [])[0].reshape(3, 6) for x in (query, key)]
    in_pairs = [_rotated(x[:, 0::2], x[:, 1::2], angles) for x in (query, key)]
    in_halves = [_rotated(x[:, :3], x[:, 3:], angles) for x in moved]
    assert np.allclose(in_pairs[0] @ in_pairs[1].T, in_halves[0] @ in_halves[1].T)


def _rotated(x: np.ndarray, y: np.ndarray, angles: np.ndarray) -> np.ndarray:
    return np.concatenate((x * np.cos(angles) - y * np.sin(angles), x * np.sin(angles) + y * np.cos(angles)), axis=1)


@pytest.mark.parametrize("rows", [None, 8])
def test_reordered_heads_come_back_and_other_rows_stay(rows: int | None) -> None:
    matrix, halves = np.arange(36).reshape(12, 3), RotaryHalves(4, rows)
    headers = halves.outputs([Header("F32", (12, 3))], int)
    (moved,) = halves.run([matrix], headers)
    assert moved[:4, 0].tolist() == [0, 6, 3, 9]
    assert (moved[8:] == matrix[8:]).all() == (rows == 8)
    (back,) = halves.inverse.run([moved], headers)
    assert (back == matrix).all()
    assert halves.inverse.inverse == halves


@pytest.mark.parametrize(("width", "rows", "shape"), [(4, None, (6, 2)), (3, None, (6, 2)), (4, 8, (6, 2)), (0, 0, ())])
def test_rows_that_are_no_heads_are_not_reordered(width: int, rows: int | None, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="no whole heads"):
        RotaryHalves(width, rows).outputs([Header("F32", shape)], int)


def test_operations_one_after_the_other_are_undone_in_the_other_order() -> None:
    both = Then(RotaryHalves(4, 4), Split(("4", "2")))
    matrix = np.arange(12, dtype=np.float32).reshape(6, 2)
    outputs = both.outputs([Header("F32", (6, 2))], int)
    assert [header.shape for header in outputs] == [(4, 2), (2, 2)]
    parts = both.run([matrix], outputs)
    assert parts[0][:, 0].tolist() == [0, 4, 2, 6]
    assert both.inverse is not None
    (back,) = both.inverse.run(parts, both.inverse.outputs(outputs, int))
    assert (back == matrix).all()


def test_what_cannot_be_undone_makes_the_whole_so() -> None:
    assert Then(COPY, Membership()).inverse is None


@pytest.mark.parametrize("shape", [(7, 3), (9, 3), ()])
def test_a_matrix_with_other_rows_than_its_parts_is_not_cut(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="need 8 rows"):
        Split(("4", "4")).outputs([Header("F32", shape)], int)


def test_a_copy_is_its_own_inverse_and_changes_nothing() -> None:
    header, values = Header("BF16", (2,)), np.array([1, 2], np.uint16)
    assert COPY.outputs([header], int) == [header]
    assert COPY.run([values], [header])[0] is values
    assert COPY.inverse is COPY


@pytest.mark.parametrize(
    ("dtype", "shape", "size"), [("F4", (3,), 2), ("BOOL", (5,), 5), ("F64", (), 8), ("I64", (0, 4), 0)]
)
def test_a_header_knows_how_many_bytes_it_describes(dtype: str, shape: tuple[int, ...], size: int) -> None:
    assert Header(dtype, shape).nbytes == size
