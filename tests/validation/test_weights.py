"""What one pass over each tensor tells: numbers that are not finite, matrices that hold nothing, heads cut wrongly."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from spec_convert import validate
from spec_convert.detection import recognise
from spec_convert.errors import Unreadable
from spec_convert.findings import Finding
from spec_convert.formats import Request
from spec_convert.open import open_checkpoint
from spec_convert.plan import make_plan
from spec_convert.sources import LocalFolder
from spec_convert.tensor import Tensor
from spec_convert.tensors import CHUNK, Numbers, blocks, check_finite, check_numbers, look, row_blocks
from spec_convert.validation.weights import weight_findings
from spec_convert.verifier import open_verifier

from ..tiny import Tiny

Make = Callable[..., Any]
DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
EVERY_DTYPE = pytest.mark.parametrize("dtype", DTYPES)
SMALLEST = {"F64": 5e-324, "F32": 1.4e-45, "F16": 6e-8, "BF16": 9.2e-41}  # subnormal, next to zero


def findings_of(source: Path, verifier: Path | None = None) -> dict[str, Finding]:
    """What the numbers of a checkpoint tell, by rule."""
    request = Request(verifier=open_verifier(verifier) if verifier else None)
    plan = make_plan(recognise(open_checkpoint(source)), request)
    return {finding.rule: finding for finding in weight_findings(plan)}


@pytest.fixture
def stored(tmp_path: Path) -> Callable[..., tuple[LocalFolder, Tensor]]:
    """A torch tensor in a file, some bytes behind its start, as the readers see it; strides and all."""

    def store(values: torch.Tensor, dtype: str = "") -> tuple[LocalFolder, Tensor]:
        values = values.to(DTYPES[dtype]) if dtype else values
        storage = torch.empty(0, dtype=torch.uint8).set_(values.untyped_storage())
        (tmp_path / "weights").write_bytes(bytes(7) + storage.numpy().tobytes())
        tensor = Tensor(
            name="t", dtype={kind: code for code, kind in DTYPES.items()}[values.dtype], shape=tuple(values.shape),
            file="weights", start=7 + values.storage_offset() * values.itemsize,
            strides=None if values.is_contiguous() else values.stride(),
        )  # fmt: skip
        return LocalFolder(root=tmp_path, label="here"), tensor

    return store


def per_chunk(dtype: str) -> int:
    return CHUNK // DTYPES[dtype].itemsize


@EVERY_DTYPE
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("place", ["first", "last of a chunk", "first of the next", "last"])
def test_a_number_that_is_not_finite_is_found_wherever_it_is(stored: Make, dtype: str, bad: float, place: str) -> None:
    chunk = per_chunk(dtype)
    size = chunk + 10
    where = {"first": 0, "last of a chunk": chunk - 1, "first of the next": chunk, "last": size - 1}[place]
    values = torch.linspace(-1, 1, size).to(DTYPES[dtype])
    assert look(*stored(values)) == Numbers()
    values[where] = bad
    assert look(*stored(values)).not_finite == where


@EVERY_DTYPE
def test_the_largest_and_the_smallest_numbers_are_finite(stored: Make, dtype: str) -> None:
    largest = torch.finfo(DTYPES[dtype]).max
    assert look(*stored(torch.tensor([[largest, -largest], [SMALLEST[dtype], -0.0]], dtype=DTYPES[dtype]))) == Numbers()


@EVERY_DTYPE
def test_zeros_of_either_sign_are_zeros_and_the_smallest_number_is_not(stored: Make, dtype: str) -> None:
    values = torch.zeros(3, per_chunk(dtype), dtype=DTYPES[dtype])
    values[1, ::2] = -0.0
    assert look(*stored(values)).zero
    for place in (0, -1):
        other = values.clone()
        other.view(-1)[place] = SMALLEST[dtype]
        assert other.count_nonzero() == 1
        assert look(*stored(other)) == Numbers()


@EVERY_DTYPE
@pytest.mark.parametrize("size", [-1, 0, 1], ids=["a number less than a chunk", "a chunk", "a number more"])
def test_one_other_number_at_either_end_is_no_constant(stored: Make, dtype: str, size: int) -> None:
    values = torch.full((per_chunk(dtype) + size,), 0.5, dtype=DTYPES[dtype])
    assert look(*stored(values)) == Numbers(constant=True)
    for place in (0, -1, 100):
        other = values.clone()
        other[place] = 0.25
        assert look(*stored(other)) == Numbers()


def rules_of(stored: Make, values: torch.Tensor) -> list[str]:
    files, tensor = stored(values)
    return [finding.rule for finding in check_numbers(files, [tensor])]


def test_only_matrices_are_told_for_holding_one_number(stored: Make) -> None:
    assert rules_of(stored, torch.zeros(4, 4)) == ["all-zero"]
    assert rules_of(stored, torch.full((2, 4, 4), -3.0)) == ["constant-matrix"]
    for usual in (torch.ones(16), torch.zeros(16), torch.ones(1, 16), torch.zeros(16, 1), torch.tensor(0.0)):
        assert rules_of(stored, usual) == []
    assert rules_of(stored, torch.zeros(0, 4)) == []


def test_a_conversion_is_stopped_only_by_numbers_that_are_not_finite(stored: Make) -> None:
    files, tensor = stored(torch.zeros(4, 4))
    assert list(check_finite(files, [tensor])) == []
    files, tensor = stored(torch.full((4, 4), float("nan")))
    assert [finding.rule for finding in check_finite(files, [tensor])] == ["not-finite"]


WIDE = torch.arange(600_000, dtype=torch.float32).reshape(3, 200_000)
VIEWS = {
    "transposed": WIDE.t(), "columns": WIDE[:, 5:1005], "every second": WIDE[:, ::2], "rows": WIDE[::2],
    "one column": WIDE[:, 7], "repeated": WIDE[1, :50].expand(4, 50), "inner": WIDE.reshape(30, 20, 1000)[:, 3:9, ::7],
    "turned": WIDE.reshape(30, 20, 1000).permute(2, 0, 1)[::3],
}  # fmt: skip


@pytest.mark.parametrize("view", VIEWS)
def test_a_strided_view_is_read_without_what_lies_between(stored: Make, view: str) -> None:
    files, tensor = stored(VIEWS[view])
    seen = np.concatenate([block.copy() for block in blocks(files, tensor)])
    assert sorted(set(seen.tolist())) == sorted(set(VIEWS[view].flatten().tolist()))


@pytest.mark.parametrize("view", ["transposed", "columns", "every second", "rows", "repeated"])
@pytest.mark.parametrize("rows", [1, 2, 1000])
def test_rows_come_in_order_whatever_the_strides(stored: Make, view: str, rows: int) -> None:
    wanted = VIEWS[view][:1100]
    files, tensor = stored(wanted)
    seen = [block.copy() for block in row_blocks(files, tensor, rows)]
    assert len(seen) == -(-len(wanted) // rows)
    assert np.array_equal(np.concatenate(seen), wanted.numpy())


def test_a_number_between_the_elements_of_a_view_counts_for_nothing(stored: Make) -> None:
    whole = torch.rand(64, 64)
    whole[5, 40] = float("nan")
    assert look(*stored(whole[:, :32])) == Numbers()
    whole[:, :32] = 0
    assert look(*stored(whole[:, :32])).zero


def test_a_file_that_ends_too_early_is_no_verdict_on_the_numbers(stored: Make, tmp_path: Path) -> None:
    files, tensor = stored(torch.zeros(64, 64))
    (tmp_path / "weights").write_bytes(bytes(1000))
    with pytest.raises(Unreadable, match="ends inside t"):
        look(files, tensor)


def test_a_matrix_of_zeros_is_found_under_the_name_that_the_file_gives_it(eagle3: Make) -> None:
    draft = eagle3()
    draft.tensors["midlayer.mlp.up_proj.weight"].zero_()
    draft.tensors["midlayer.hidden_norm.weight"].fill_(1)
    assert [(f.rule, f.where) for f in findings_of(draft.write()).values()] == [
        ("all-zero", "midlayer.mlp.up_proj.weight")
    ]


@pytest.mark.parametrize("norm", ["norm.weight", "midlayer.hidden_norm.weight"])
def test_a_norm_of_zeros_switches_the_draft_off(eagle3: Make, norm: str) -> None:
    draft = eagle3()
    draft.tensors[norm].zero_()
    assert [(f.rule, f.where) for f in findings_of(draft.write()).values()] == [("all-zero", norm)]


def test_a_layer_of_zeros_is_a_hole_where_no_export_makes_one(eagle3: Make) -> None:
    draft = eagle3()
    for name, tensor in draft.tensors.items():
        if "self_attn" in name or "mlp" in name:
            tensor.zero_()
    assert set(findings_of(draft.write())) == {"all-zero"}


def test_a_layer_of_zeros_is_idle_and_one_with_a_single_number_has_holes(eagle: Make) -> None:
    draft = eagle()
    matrices = [name for name in draft.tensors if name.startswith("layers.0.") and draft.tensors[name].dim() == 2]
    for name in matrices:
        draft.tensors[name].zero_()
    assert [(f.rule, f.where) for f in findings_of(draft.write()).values()] == [("idle-layer", "layers.0")]
    draft.tensors[matrices[0]][0, 0] = 1
    report = validate(draft.write(), level="tensors")
    assert [f.where for f in report.checked[0].findings if f.rule == "all-zero"] == sorted(matrices[1:])


def kept(draft: Tiny, tokens: list[int], vocabulary_of: Make) -> torch.Tensor:
    """The draft with a vocabulary of these tokens. Returns a full head to cut its own from."""
    draft.tensors |= vocabulary_of(tokens)
    return torch.randn(32, 16, generator=torch.Generator().manual_seed(1))


SOME = [0, 1, 2, 5, 6, 7, 8, 11, 12, 13, 17, 18, 19, 20, 21, 25, 26, 28, 29, 31]


@pytest.mark.parametrize("unified", [False, True], ids=["native", "unified"])
def test_a_head_cut_with_offsets_for_ids_is_found(eagle3: Make, vocabulary_of: Make, unified: bool) -> None:
    draft = eagle3()
    full = kept(draft, SOME, vocabulary_of)
    draft.tensors["lm_head.weight"] = full[draft.tensors["d2t"]]
    found = findings_of(draft.convert().output if unified else draft.write())
    assert list(found) == ["head-rows-duplicated"]
    assert "identical in 13 of the 13 places" in found["head-rows-duplicated"].message


def test_a_head_cut_with_ids_is_fine(eagle3: Make, vocabulary_of: Make) -> None:
    draft = eagle3()
    full = kept(draft, SOME, vocabulary_of)
    draft.tensors["lm_head.weight"] = full[SOME].contiguous()
    assert findings_of(draft.write()) == {}


def test_a_few_rows_of_tokens_that_were_never_trained_may_be_identical(eagle3: Make, vocabulary_of: Make) -> None:
    draft = eagle3()
    full = kept(draft, SOME, vocabulary_of)
    full[17:22] = full[17]
    draft.tensors["lm_head.weight"] = full[SOME].contiguous()
    assert findings_of(draft.write()) == {}


def test_a_row_that_was_repaired_later_hides_nothing(eagle3: Make, vocabulary_of: Make) -> None:
    draft = eagle3()
    full = kept(draft, SOME, vocabulary_of)
    draft.tensors["lm_head.weight"] = full[draft.tensors["d2t"]]
    draft.tensors["lm_head.weight"][0] = full[0] + 1
    assert "12 of the 13" in findings_of(draft.write())["head-rows-duplicated"].message


def test_a_vocabulary_without_neighbours_says_nothing(eagle3: Make, vocabulary_of: Make) -> None:
    draft = eagle3(draft_vocab_size=16)
    kept(draft, list(range(0, 32, 2)), vocabulary_of)
    draft.tensors["lm_head.weight"] = torch.rand(1, 16).repeat(16, 1)
    assert findings_of(draft.write()) == {}


def test_a_pair_on_the_border_of_two_blocks_is_seen(
    eagle3: Make, vocabulary_of: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("spec_convert.validation.comparing.CHUNK", 16 * 4)  # one row a block
    draft = eagle3()
    full = kept(draft, SOME, vocabulary_of)
    draft.tensors["lm_head.weight"] = full[draft.tensors["d2t"]]
    assert "13 of the 13" in findings_of(draft.write())["head-rows-duplicated"].message
