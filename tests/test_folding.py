"""Operations that write the same function in other tensors: what they compute, and what they say it costs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from spec_convert.folding import ROWS, Constant, FoldBias, MlpTable
from spec_convert.operations import Cast, Header

RANDOM = np.random.default_rng(0)
SIZES = {"hidden": 4, "rows": 3}.__getitem__


def size(term: str) -> int:
    return int(np.prod([int(part) if part.isdigit() else SIZES(part) for part in term.split("*")]))


def fusion(hidden: int = 8, tokens: int = 20) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    weight = np.concatenate([np.eye(hidden) + 0.1 * RANDOM.normal(size=(hidden, hidden)), np.ones((hidden, hidden))], 1)
    return tuple(
        array.astype(np.float32) for array in (weight, RANDOM.normal(size=hidden), RANDOM.normal(size=(tokens, hidden)))
    )  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("kind", "shape", "expected"),
    [
        ("zeros", ("hidden",), np.zeros(4)),
        ("ones", ("rows",), np.ones(3)),
        ("identity", ("hidden", "2*hidden"), np.concatenate([np.eye(4), np.zeros((4, 4))], 1)),
    ],
)
@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
def test_a_constant_has_the_shape_that_is_asked_for(
    kind: str, shape: tuple[str, ...], expected: np.ndarray, dtype: str
) -> None:
    constant = Constant(kind, shape, dtype)
    (header,) = constant.outputs([], size)
    (values,) = constant.run([], [header])
    assert header == Header(dtype, expected.shape)
    assert np.array_equal(Cast("F32", dtype).run([values], ())[0], expected)


def test_the_fused_state_is_the_one_with_the_bias() -> None:
    weight, bias, table = fusion()
    (folded,) = FoldBias(("F32",) * 3, "F32").run([weight, bias, table], [])
    half = weight[:, :8]
    np.testing.assert_allclose(folded @ half.T, table @ half.T + bias, atol=1e-5)


@pytest.mark.parametrize(("dtype", "bound"), [("F64", 1e-7), ("F32", 1e-6), ("F16", 1e-2), ("BF16", 1e-1)])
def test_the_residual_is_that_of_what_is_stored(dtype: str, bound: float) -> None:
    """It is measured here again, the long way."""
    weight, bias, table = fusion()
    fold = FoldBias(("F32",) * 3, dtype)
    (raw,) = fold.run([weight, bias, table], [])
    stored = Cast("F64", dtype).run([raw], ())[0]
    half = weight[:, :8].astype(np.float64)
    left = np.linalg.norm((stored - table) @ half.T - bias, axis=1).max() / np.linalg.norm(bias)
    assert fold.residual(weight, bias, table) == pytest.approx(left, rel=0.05, abs=1e-8)
    assert left < bound


def test_a_table_of_several_blocks_is_folded_whole() -> None:
    weight, bias, _ = fusion()
    table = RANDOM.normal(size=(ROWS + 3, 8)).astype(np.float32)
    fold = FoldBias(("F32",) * 3, "F32")
    (folded,) = fold.run([weight, bias, table], [])
    assert folded.shape == table.shape
    np.testing.assert_allclose(folded - table, np.tile(fold.shift(weight, bias), (len(table), 1)), atol=1e-6)


def test_a_singular_fusion_cannot_be_folded() -> None:
    weight, bias, table = fusion()
    weight[0] = 0
    fold = FoldBias(("F32",) * 3, "F32")
    with pytest.raises(ValueError, match="singular"):
        fold.run([weight, bias, table], [])
    assert fold.condition(weight) == np.inf


def test_a_sum_beyond_the_dtype_is_an_error_and_no_infinity() -> None:
    weight, bias, table = fusion()
    with pytest.raises(ValueError, match="too large for F16"):
        FoldBias(("F32",) * 3, "F16").run([weight, bias, table * 1e6], [])


@pytest.mark.parametrize("linears", [1, 3])
def test_the_table_of_an_mlp_is_what_torch_computes(linears: int) -> None:
    torch.manual_seed(0)
    embedding = nn.Embedding(50, 8)
    mlp = nn.Sequential(*(part for _ in range(linears) for part in (nn.Linear(8, 8), nn.ReLU(), nn.LayerNorm(8))))
    for parameter in mlp.parameters():
        nn.init.normal_(parameter)
    parts = [p.detach().numpy() for p in (embedding.weight, *mlp.parameters())]
    (table,) = MlpTable(("F32",) * len(parts), "F32", 1e-5).run(parts, [])
    np.testing.assert_allclose(table, mlp(embedding.weight).detach().numpy(), rtol=1e-4, atol=1e-5)
