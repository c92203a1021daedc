"""The draft vocabulary of EAGLE-3: what `d2t` and `t2d` mean, decided by their values, and the rows that follow.

Everywhere on the Hub `d2t` holds offsets (target = i + d2t[i]); shared-head checkpoints hold absolute ids, and read as
offsets those map token i to 2i. Both tables are small, so they are read before anything is planned. A table whose
values fit neither reading, or both, is refused: every server would map tokens wrongly without a word.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from spec_convert.checkpoint import Checkpoint
from spec_convert.errors import Refused
from spec_convert.findings import Finding
from spec_convert.operations import COPY, Cast, Membership, OffsetsFromAbsolute
from spec_convert.rules import found
from spec_convert.tensor import FLOATS
from spec_convert.tensor_map import TensorMap, derive, drop, keep

if TYPE_CHECKING:
    import numpy as np

MOST_TOKENS = 1 << 24  # sixty times the largest vocabulary there is; the tables are read as a whole
WIDE = "the draft vocabulary is the verifier's: servers fail on a map that maps nothing"
# fmt: off
FULL = TensorMap(
    drop("d2t", because=WIDE),
    drop("t2d", because=WIDE),
    keep("lm_head.weight", shape="vocabulary hidden", optional=True),
)
HEAD = TensorMap(keep("lm_head.weight", shape="draft_vocabulary hidden"))
OFFSETS = HEAD + TensorMap(
    keep("d2t", shape="draft_vocabulary"),
    keep("t2d", shape="vocabulary"),
)
ABSOLUTE = HEAD + TensorMap(
    keep("d2t", shape="draft_vocabulary", via=OffsetsFromAbsolute()),
    keep("t2d", shape="vocabulary"),
)
OFFSETS_ONLY = HEAD + TensorMap(
    keep("d2t", shape="draft_vocabulary"),
    derive("t2d", of="d2t", via=Membership()),
)
# fmt: on
TABLES = {
    "full vocabulary": FULL,
    "vocabulary map of offsets": OFFSETS,
    "vocabulary map of absolute ids": ABSOLUTE,
    "vocabulary map without t2d": OFFSETS_ONLY,
}


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """The rows for `d2t`, `t2d` and the head, and what there is to say."""

    rows: TensorMap
    findings: tuple[Finding, ...] = ()


def read_vocabulary(checkpoint: Checkpoint, vocabulary: int, draft_vocabulary: int) -> Vocabulary:
    """The rows that fit this checkpoint's vocabulary map. Raises Refused when its values cannot be trusted."""
    if vocabulary > MOST_TOKENS:
        message = f"is {vocabulary}: no model has more than {MOST_TOKENS} tokens"
        _refuse("config-key-invalid", "config.json: vocab_size", message, "check vocab_size, of the draft's config too")
    if draft_vocabulary == vocabulary:
        _refuse_unless_it_maps_nothing(checkpoint, vocabulary)
        return Vocabulary(rows=FULL)
    if draft_vocabulary > vocabulary:
        _refuse("draft-vocabulary-too-large", "config.json", f"{draft_vocabulary} draft tokens for {vocabulary} tokens")
    if "d2t" not in checkpoint:
        message = f"the head knows {draft_vocabulary} of {vocabulary} tokens and no `d2t` says which"
        _refuse(
            "d2t-missing", "d2t", message, "without it servers take the first ones; ask the publisher for the table"
        )
    _refuse_odd_types(checkpoint, vocabulary, draft_vocabulary)
    made = _read_map(checkpoint, vocabulary)
    if "lm_head.weight" in checkpoint:
        return made
    message = f"the format requires it: the draft knows {draft_vocabulary} of {vocabulary} tokens"
    missing = found("reduced-head-missing", where="lm_head.weight", message=message)
    rows = TensorMap(*(row for row in made.rows if row.text != "lm_head.weight"))
    return Vocabulary(rows=rows, findings=(missing, *made.findings))


def _read_map(checkpoint: Checkpoint, vocabulary: int) -> Vocabulary:
    """The rows for offsets or for absolute ids, whichever `d2t` holds."""
    d2t = checkpoint.read("d2t").astype("int64")
    t2d = _marks(checkpoint) if "t2d" in checkpoint else None
    if t2d is None and not d2t.any():
        _refuse("d2t-ambiguous", "d2t", "holds nothing but zeros: the first tokens, or a table never filled", _REBUILD)
    if _is_absolute(d2t, t2d, vocabulary):
        note = found("d2t-absolute", where="d2t", message="holds absolute ids: stored as offsets")
        if t2d is None:
            _refuse("d2t-ambiguous", "d2t", "holds absolute ids and there is no `t2d` to confirm it", _REBUILD)
        return Vocabulary(rows=_typed(ABSOLUTE, checkpoint), findings=(note,))
    if t2d is None:
        note = found("t2d-rebuilt", where="t2d", message="is not in the file: rebuilt from d2t")
        return Vocabulary(rows=_typed(OFFSETS_ONLY, checkpoint), findings=(note,))
    return Vocabulary(rows=_typed(OFFSETS, checkpoint))


_REBUILD = "rebuild the map from the list of kept tokens: d2t[i] = token[i] - i, t2d[token] = true"


def _refuse_unless_it_maps_nothing(checkpoint: Checkpoint, vocabulary: int) -> None:
    """At full vocabulary the maps are dropped, which is right only for the identity, as offsets or as absolute ids."""
    import numpy as np

    _refuse_odd_types(checkpoint, vocabulary, vocabulary)
    if "d2t" in checkpoint:
        d2t = checkpoint.read("d2t")
        if d2t.any() and not np.array_equal(d2t, np.arange(vocabulary)):
            _refuse("d2t-inconsistent", "d2t", "permutes a full vocabulary, which no server does", _REORDER)
    if "t2d" in checkpoint and not _marks(checkpoint).all():
        _refuse("d2t-inconsistent", "t2d", "leaves tokens out of a vocabulary that is said to be full", _REBUILD)


_REORDER = "put the rows of lm_head into the verifier's order, or check vocab_size and draft_vocab_size"


def _is_absolute(d2t: np.ndarray, t2d: np.ndarray | None, vocabulary: int) -> bool:
    """Whether the values are absolute ids. Raises Refused unless exactly one reading makes sense."""
    import numpy as np

    as_offsets = _problem(d2t + np.arange(len(d2t)), t2d, vocabulary)
    as_absolute = _problem(d2t, t2d, vocabulary)
    if as_offsets is None and as_absolute is None and bool((np.diff(d2t) > 0).all()) and len(d2t) > 1:
        _refuse("d2t-ambiguous", "d2t", "makes sense as offsets and as absolute ids", _REBUILD)
    if as_offsets is not None and as_absolute is not None:
        _refuse("d2t-inconsistent", "d2t", f"as offsets {as_offsets}; as absolute ids {as_absolute}", _REBUILD)
    return as_offsets is not None


def _marks(checkpoint: Checkpoint) -> np.ndarray:
    raw = checkpoint.read("t2d").view("u1")
    if (raw > 1).any():
        _refuse("d2t-inconsistent", "t2d", "holds values other than 0 and 1", _REBUILD)
    return raw.astype(bool)


def _problem(targets: np.ndarray, t2d: np.ndarray | None, vocabulary: int) -> str | None:
    """Why these cannot be the target tokens of the draft tokens, or None when they can."""
    import numpy as np

    outside = (targets < 0) | (targets >= vocabulary)
    if outside.any():
        row = int(np.argmax(outside))
        return f"row {row} stands for token {int(targets[row])}, outside the vocabulary of {vocabulary}"
    order = np.argsort(targets, kind="stable")
    twins = np.flatnonzero(np.diff(targets[order]) == 0)
    if twins.size:
        one, other = sorted((int(order[twins[0]]), int(order[twins[0] + 1])))
        return f"rows {one} and {other} both stand for token {int(targets[one])}"
    if t2d is not None and (not t2d[targets].all() or int(t2d.sum()) != len(targets)):
        return f"it disagrees with t2d ({int(t2d.sum())} tokens marked, {int(t2d[targets].sum())} of them in d2t)"
    return None


def _refuse_odd_types(checkpoint: Checkpoint, vocabulary: int, draft_vocabulary: int) -> None:
    expected = {"d2t": ({"I64", "I32"}, (draft_vocabulary,)), "t2d": ({"BOOL", "U8"}, (vocabulary,))}
    for name, (dtypes, shape) in expected.items():
        tensor = checkpoint.tensors.get(name)
        if tensor is None:
            continue
        if tensor.dtype not in dtypes:
            rounded = ": a cast to float rounds every value above 256" if tensor.dtype in FLOATS else ""
            _refuse(
                "vocabulary-map-dtype", name, f"is {tensor.dtype}, not {' or '.join(sorted(dtypes))}{rounded}", _REBUILD
            )
        if tensor.shape != shape:
            _refuse("wrong-shape", name, f"has shape {tensor.shape}, expected {shape}")


def _typed(rows: TensorMap, checkpoint: Checkpoint) -> TensorMap:
    """The rows with casts for maps that were stored in a narrower type."""
    narrow = {"d2t": Cast("I64", "I32"), "t2d": Cast("BOOL", "U8")}
    adapted = []
    for row in rows:
        cast = narrow.get(row.text)
        if cast and row.via is COPY and checkpoint.tensors[row.text].dtype == cast.back:
            adapted.append(keep(row.text, shape=" ".join(row.laws[0]), via=cast))
        else:
            adapted.append(row)
    return TensorMap(*adapted)


def _refuse(rule: str, where: str, message: str, hint: str = "") -> NoReturn:
    raise Refused([found(rule, where=where, message=message, hint=hint)])
