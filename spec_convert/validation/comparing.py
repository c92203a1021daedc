"""The draft's embedding and head, row by row: against the verifier's, and the head against its own vocabulary map."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from spec_convert.bytes import read_tensor
from spec_convert.errors import Unreadable
from spec_convert.findings import Finding
from spec_convert.operations import COPY, Cast
from spec_convert.plan import Plan
from spec_convert.rules import found
from spec_convert.tensor import BITS, FLOATS, Files, Tensor
from spec_convert.tensors import CHUNK, row_blocks
from spec_convert.verifier import Verifier

if TYPE_CHECKING:
    import numpy as np

EMBEDDING, HEAD, MAP = "embed_tokens.weight", "lm_head.weight", "d2t"
# Unified types whose drafts take from the verifier which of the two they lack.
BORROWING = ("dflash", "dspark", "eagle", "eagle3", "mtp", "peagle")
REMOTE_CHUNK = 16 * CHUNK  # every block of a remote file is a request
_NEARLY_ALL = 0.9  # of the rows: what no trained head shows by chance, and a cut one shows in spite of later repairs
_SAMPLE = 64
_FEWEST = 8  # pairs of rows: fewer prove nothing


@dataclass(frozen=True)
class Table:
    """A matrix with a row for each token, and where it lies."""

    files: Files
    tensor: Tensor

    @property
    def rows(self) -> int:
        return self.tensor.shape[0]

    @property
    def width(self) -> int:
        return self.tensor.shape[1]

    def row(self, number: int) -> np.ndarray:
        pitch = self.tensor.strides[0] if self.tensor.strides is not None else self.width
        start = self.tensor.start + number * pitch * BITS[self.tensor.dtype] // 8
        return read_tensor(self.files, replace(self.tensor, start=start, shape=(1, self.width)))


@dataclass(frozen=True)
class Tables:
    """The tables of the draft that a plan is about, by their unified names."""

    plan: Plan

    @property
    def embedding(self) -> Table | None:
        return self._taken_over(EMBEDDING)

    @property
    def head(self) -> Table | None:
        return self._taken_over(HEAD)

    @cached_property
    def map(self) -> np.ndarray | None:
        """`d2t` as offsets, when each of them belongs to a row of the head; None for drafts without one."""
        for step in self.plan.steps:
            for name, header in step.targets:
                if name == MAP and self.head and (header.dtype, header.shape) == ("I64", (self.head.rows,)):
                    return self.plan.compute(step)[MAP]
        return None

    def _taken_over(self, target: str) -> Table | None:
        """The matrix of floats that becomes ``target`` as it lies in the source. What is computed is not compared."""
        checkpoint = self.plan.detection.checkpoint
        for step in self.plan.steps:
            if step.via is COPY and [name for name, _ in step.targets] == [target]:
                return _table(checkpoint.files, checkpoint.tensors[step.sources[0]])
        return None


def _table(files: Files, tensor: Tensor) -> Table | None:
    fits = tensor.dtype in FLOATS and len(tensor.shape) == 2 and all(tensor.shape)
    return Table(files, tensor) if fits else None


def repeated_rows(draft: Tables) -> Iterator[Finding]:
    """A head that was cut as `lm_head[d2t]` with offsets: equal offsets then stand beside equal rows."""
    import numpy as np

    head, offsets = draft.head, draft.map
    if head is None or offsets is None:
        return
    repeats = offsets[1:] == offsets[:-1]
    total = int(repeats.sum())
    equal = different = done = 0
    last: np.ndarray | None = None
    for block in row_blocks(head.files, head.tensor, _rows_at_a_time(head)):
        bits = _bits(block)
        rows = bits if last is None else np.concatenate([last, bits])
        here = repeats[done : done + len(rows) - 1]
        alike = (rows[1:] == rows[:-1]).all(axis=1)[here]
        equal, different = equal + int(alike.sum()), different + int((~alike).sum())
        if different > (1 - _NEARLY_ALL) * total:
            return
        done, last = done + len(rows) - 1, rows[-1:].copy()
    if equal >= _FEWEST:
        message = f"rows i and i+1 are identical in {equal} of the {total} places where d2t[i] = d2t[i+1]"
        hint = "cut the full head again with the token ids, d2t[i] + i: servers would score other tokens with these"
        yield found("head-rows-duplicated", where=head.tensor.name, message=message, hint=hint)


def against_verifier(draft: Tables, verifier: Verifier) -> Iterator[Finding]:
    """What draft and verifier hold both, and whether the verifier has what the draft takes from it."""
    config = draft.plan.config or {}
    borrows = config.get("speculators_model_type") in BORROWING
    targets = {name for step in draft.plan.steps for name, _ in step.targets}
    lacking: list[Finding] = []  # each once: a verifier without weights has neither table for one and the same reason
    for name in (EMBEDDING, HEAD):
        try:
            theirs = _of_verifier(verifier, name)
        except Unreadable as absent:
            if borrows and name not in targets and absent.finding not in lacking:
                lacking.append(absent.finding)
                yield absent.finding
            continue  # what nobody borrows need not be there
        if theirs is None:
            continue
        if name == EMBEDDING and draft.embedding is not None:
            yield from _embeddings(draft.embedding, theirs)
        if name == HEAD and draft.head is not None and draft.map is not None:
            yield from _first_rows(draft.head, draft.map, theirs)


def _of_verifier(verifier: Verifier, name: str) -> Table | None:
    """The verifier's table; None when its numbers are quantised. Raises Unreadable when there is none that fits."""
    there = verifier.embedding_name if name == EMBEDDING else verifier.head_name
    tensor = verifier.checkpoint.tensors[there]
    expected = (verifier.vocab_size, verifier.hidden_size)
    if tensor.dtype in FLOATS and tensor.shape != expected:
        message = f"has shape {tensor.shape}, and config.json says {expected}"
        hint = "the verifier's weights and its config.json are of different models: download it again"
        raise Unreadable(found("verifier-unusable", where=f"{verifier.name}: {there}", message=message, hint=hint))
    return _table(verifier.files, tensor)


def is_the_verifiers(files: Files, head: Tensor, verifier: Verifier) -> bool | None:
    """Whether this head is a copy of the verifier's. None: it has none here to compare with."""
    if verifier.files.revision is not None:
        return None  # a head of the Hub is a gigabyte
    try:
        ours, theirs = _table(files, head), _of_verifier(verifier, HEAD)
    except Unreadable:
        return None
    if ours is None or theirs is None or ours.tensor.shape != theirs.tensor.shape:
        return False if theirs is not None else None
    return all(same.all() for same in _alike(ours, theirs))


def _embeddings(ours: Table, theirs: Table) -> Iterator[Finding]:
    """Whether the draft's embedding is a copy. Drafts of another width have one of their own, as they must."""
    import numpy as np

    if ours.tensor.shape != theirs.tensor.shape:
        return
    done = 0
    for same in _alike(ours, theirs):
        if not same.all():
            row = done + int(np.argmin(same))
            message = f"differs from the verifier's {theirs.tensor.name}, in row {row} first"
            yield found("embedding-of-its-own", where=ours.tensor.name, message=message)
            return
        done += len(same)
    stored = "" if ours.tensor.dtype == theirs.tensor.dtype else f", as {ours.tensor.dtype}"
    spared = f"{ours.tensor.nbytes / 1e6:.1f} MB that could be left out"
    message = f"is the verifier's {theirs.tensor.name}{stored}: {spared}"
    yield found("embedding-is-the-verifiers", where=ours.tensor.name, message=message)


def _first_rows(head: Table, offsets: np.ndarray, theirs: Table) -> Iterator[Finding]:
    """A head that was cut as `lm_head[:len(d2t)]`: its rows are the verifier's of the same number."""
    moved = offsets != 0
    total = int(moved.sum())
    if not total or head.width != theirs.width or head.rows > theirs.rows:
        return
    equal = different = done = 0
    for same in _alike(head, theirs):
        here = same[moved[done : done + len(same)]]
        equal, different = equal + int(here.sum()), different + int((~here).sum())
        if different > (1 - _NEARLY_ALL) * total:
            return
        done += len(same)
    if _differ(theirs, moved.nonzero()[0], offsets):
        message = f"{equal} of the {total} rows that d2t maps elsewhere are the verifier's rows of the same number"
        hint = "cut the verifier's head again with the token ids, d2t[i] + i"
        yield found("head-of-other-tokens", where=head.tensor.name, message=message, hint=hint)


def _differ(theirs: Table, moved: np.ndarray, offsets: np.ndarray) -> bool:
    """Whether the verifier's rows of these numbers are others than those that d2t names: tokens may share a row."""
    sample = moved[:: -(-len(moved) // _SAMPLE)].tolist()
    others = ((number, number + int(offsets[number])) for number in sample)
    return any(0 <= token < theirs.rows and (theirs.row(token) != theirs.row(row)).any() for row, token in others)


def _alike(ours: Table, theirs: Table) -> Iterator[np.ndarray]:
    """For each row of ours whether theirs of the same number is equal, block by block. Theirs may have more rows."""
    import numpy as np

    assert ours.rows <= theirs.rows, "rows of ours would go unseen"
    at_once = min(_rows_at_a_time(ours), _rows_at_a_time(theirs))
    pairs = zip(*(row_blocks(table.files, table.tensor, at_once) for table in (ours, theirs)), strict=False)
    for mine, their in pairs:
        same = _same(mine, ours.tensor.dtype, their[: len(mine)], theirs.tensor.dtype)
        yield np.asarray(same.all(axis=1))


def _rows_at_a_time(table: Table) -> int:
    chunk = CHUNK if table.files.revision is None else REMOTE_CHUNK
    return max(1, chunk * 8 // (table.width * BITS[table.tensor.dtype]))


def _same(ours: np.ndarray, dtype: str, theirs: np.ndarray, other: str) -> np.ndarray:
    """Which numbers are equal, or would be after rounding one of the two to the other's dtype."""
    if dtype == other:
        return _bits(ours) == _bits(theirs)  # type: ignore[no-any-return]
    same = _rounds_to(theirs, other, ours, dtype)
    return same if same.all() else same | _rounds_to(ours, dtype, theirs, other)


def _rounds_to(values: np.ndarray, dtype: str, wanted: np.ndarray, to: str) -> np.ndarray:
    import numpy as np

    try:
        (rounded,) = Cast(to, dtype).run([values], ())
    except ValueError:  # one of them is too large for that dtype, so this block was not made that way
        return np.zeros(wanted.shape, dtype=np.bool_)
    return rounded == wanted  # type: ignore[no-any-return]


def _bits(values: np.ndarray) -> np.ndarray:
    import numpy as np

    return values.view(np.dtype(f"<u{values.itemsize}"))
