"""Hidden states in files that some other capture has left, by the token ids that they belong to.

Where a verifier was split among tensor-parallel ranks, every rank may have written its own copy; the path says whose.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from spec_convert.errors import UsageError
from spec_convert.training.capture.identity import text_digest
from spec_convert.training.capture.states import Wanted

if TYPE_CHECKING:
    from torch import Tensor

    from spec_convert.training.capture.engine import Chunk

TOKENS = ("token_ids", "input_ids")
STATES = "hidden_states"
# `rank_0/`, `_rank0.`, `tp-rank-0`; else `_tp0.`. Ranks of other kinds, such as `dp_rank_0`, hold other texts.
RANK = re.compile(r"(?<![a-z0-9])(?<!dp[_-])(?<!pp[_-])(?:tp[_-]?)?rank[_-]?(\d+)(?![a-z0-9])", re.IGNORECASE)
TENSOR_PARALLEL = re.compile(r"(?<![a-z0-9])tp[_-]?(\d+)(?![a-z0-9])", re.IGNORECASE)


@dataclass(frozen=True)
class Found:
    """Which files hold the states of which text, by its digest."""

    paths: Mapping[bytes, Sequence[Path]]

    def of(self, token_ids: Sequence[int]) -> Sequence[Path]:
        return self.paths.get(text_digest(token_ids), ())


class FileEngine:
    """An `Engine` whose states are there already."""

    name = "files"

    def __init__(self, found: Found, wanted: Wanted) -> None:
        self._found, self._wanted = found, wanted

    def capture(self, chunks: Iterable[Chunk]) -> Iterator[list[Tensor]]:
        """As `Engine` says. Raises UsageError when two files say different things of one text."""
        for chunk in chunks:
            yield [self._states(token_ids) for token_ids in chunk]

    def _states(self, token_ids: Sequence[int]) -> Tensor:
        import torch

        first, *others = self._found.of(token_ids)
        states = self._checked(first, len(token_ids))
        for path in others:
            if not torch.equal(states, self._checked(path, len(token_ids))):
                raise UsageError(
                    f"{first} and {path} hold different states of one text: each may be a part of them, "
                    "and parts cannot be used",
                    hint="if one of the ranks has the whole, take it: --filter-rank 0",
                )
        return states

    def _checked(self, path: Path, tokens: int) -> Tensor:
        return self._wanted.checked(_read(path, STATES), tokens=tokens, where=path)


def find_states(folder: Path, *, rank: int | None) -> Found:
    """The files below ``folder``, all or those of one rank. Raises UsageError when one of them holds something else."""
    paths = sorted(path for path in folder.rglob("*") if path.suffix in (".safetensors", ".pt") and path.is_file())
    if rank is not None:
        paths = [path for path in paths if _rank_of(path.relative_to(folder)) == rank]
    if not paths:
        of_rank = "" if rank is None else f" of rank {rank}"
        raise UsageError(f"there are no .safetensors or .pt files{of_rank} below {folder}", hint="give another --files")
    found: dict[bytes, list[Path]] = defaultdict(list)
    for path in paths:
        found[text_digest(_token_ids(path))].append(path)
    return Found(found)


def _token_ids(path: Path) -> list[int]:
    """Those of one text, in whatever shape."""
    tensor = _read(path, *TOKENS)
    kind = str(tensor.dtype).removeprefix("torch.")
    if kind not in ("int32", "int64"):
        raise UsageError(f"{path} holds {kind} for token ids", hint="remove it, or give another --files")
    ids: list[int] = tensor.flatten().tolist()
    return ids


def _rank_of(path: Path) -> int:
    """Raises UsageError when the path names no rank, or several."""
    text = path.as_posix()
    ranks = {int(number) for number in RANK.findall(text) or TENSOR_PARALLEL.findall(text)}
    if len(ranks) != 1:
        named = f"the ranks {', '.join(map(str, sorted(ranks)))}" if ranks else "no rank"
        raise UsageError(
            f"{path} names {named}", hint="--filter-rank wants paths such as rank_0/a.pt, a_rank0.pt or a_tp0.pt"
        )
    return ranks.pop()


def _read(path: Path, *names: str) -> Tensor:
    """The first of these tensors that the file holds. Of a .pt file nothing but tensors is unpickled."""
    from pickle import UnpicklingError

    import torch
    from safetensors import SafetensorError, safe_open

    try:
        if path.suffix == ".pt":
            held = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            tensor = next((held[name] for name in names if name in held), None) if isinstance(held, dict) else None
        else:
            with safe_open(path, framework="pt") as file:
                tensor = next((file.get_tensor(name) for name in names if name in file.keys()), None)  # noqa: SIM118
    except (OSError, RuntimeError, SafetensorError, UnpicklingError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UsageError(
            f"{path} cannot be read: {reason}", hint="remove it, if it is no file of hidden states"
        ) from error
    if not isinstance(tensor, torch.Tensor):
        raise UsageError(f"{path} holds no tensor {' or '.join(names)}", hint="remove it, or give another --files")
    return tensor
