"""Shape laws: named sizes such as `heads*head_dim` that must agree between all tensors and config.json."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import prod

from spec_convert.findings import Finding
from spec_convert.rules import found


@dataclass(frozen=True, slots=True)
class Known:
    """A size and who says so: ``config.json`` or the name of a tensor."""

    value: int
    origin: str


@dataclass(frozen=True, slots=True)
class Law:
    """``tensor`` has shape ``shape`` in the file and must have the shape ``terms``."""

    tensor: str
    shape: tuple[int, ...]
    terms: tuple[str, ...]


def size_of(term: str, sizes: Mapping[str, Known]) -> int:
    """The value of a term such as ``3*target``. Raises KeyError when a name in it is not known."""
    return prod(int(factor) if factor.isdigit() else sizes[factor].value for factor in term.split("*"))


def solve(laws: Iterable[Law], sizes: Mapping[str, Known]) -> tuple[dict[str, Known], list[Finding]]:
    """All sizes that the laws and the known ``sizes`` fix, and a finding for each tensor that contradicts them.

    Unknown sizes are solved for in passes, so that the order of the tensors in a file never matters; the origin of a
    solved size is the alphabetically first tensor that gives it.
    """
    laws = sorted(laws, key=lambda law: law.tensor)
    known = dict(sizes)
    findings = [_wrong_rank(law) for law in laws if len(law.shape) != len(law.terms)]
    laws = [law for law in laws if len(law.shape) == len(law.terms)]
    terms = [(term, actual, law.tensor) for law in laws for term, actual in _pairs(law)]
    while sum(_solve_one(*term, known) for term in terms):
        pass  # each pass may make another term solvable
    findings += [f for law in laws for term, actual in _pairs(law) if (f := _check(law, term, actual, known))]
    return known, findings


def _pairs(law: Law) -> Iterator[tuple[str, int]]:
    return zip(law.terms, law.shape, strict=True)


def _solve_one(term: str, actual: int, tensor: str, known: dict[str, Known]) -> bool:
    factors = term.split("*")
    unknown = [factor for factor in factors if not factor.isdigit() and factor not in known]
    if len(unknown) != 1:
        return False
    rest = prod(int(f) if f.isdigit() else known[f].value for f in factors if f != unknown[0])
    if rest <= 0 or actual <= 0 or actual % rest:
        return False
    known[unknown[0]] = Known(actual // rest, tensor)
    return True


def _check(law: Law, term: str, actual: int, known: Mapping[str, Known]) -> Finding | None:
    names = sorted({factor for factor in term.split("*") if not factor.isdigit()})
    said = ", ".join(f"{name} = {known[name].value} from {known[name].origin}" for name in names if name in known)
    if any(name not in known for name in names):
        message = f"{actual} cannot be {term}" + (f" with {said}" if said else "")
    elif size_of(term, known) != actual:
        message = f"expected {term} = {size_of(term, known)} ({said}), found {actual}"
    else:
        return None
    shape = " x ".join(map(str, law.shape))
    return found(
        "wrong-shape", where=law.tensor, message=f"has shape {shape}: {message}",
        hint="the tensor is damaged or config.json belongs to another checkpoint",
    )  # fmt: skip


def _wrong_rank(law: Law) -> Finding:
    return found(
        "wrong-shape", where=law.tensor,
        message=f"expected {' x '.join(law.terms)}, found {' x '.join(map(str, law.shape)) or 'a single number'}",
    )  # fmt: skip
