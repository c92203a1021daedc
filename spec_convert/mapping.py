"""A table applied to a checkpoint: every tensor moved, dropped with a reason, or reported; nothing passes unnamed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count, product
from typing import TYPE_CHECKING

from spec_convert.errors import Refused
from spec_convert.findings import Finding
from spec_convert.operations import Header, Operation
from spec_convert.rules import found
from spec_convert.shapes import Known, Law, size_of, solve
from spec_convert.templates import Numbers, Template
from spec_convert.tensor import Tensor
from spec_convert.tensor_map import Row, TensorMap

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, kw_only=True)
class Step:
    """Output tensors, the source tensors that they are made of, and how."""

    sources: tuple[str, ...]
    targets: tuple[tuple[str, Header], ...]
    via: Operation

    def run(self, sources: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The output tensors. Raises Refused when a value of the sources cannot be stored in them."""
        try:
            return self.via.run(sources, [header for _, header in self.targets])
        except ValueError as lost:
            raise Refused([found("value-lost", where=", ".join(self.sources), message=str(lost))]) from lost


@dataclass(frozen=True, kw_only=True)
class Mapped:
    """What a table makes of a checkpoint."""

    steps: tuple[Step, ...]
    dropped: Mapping[str, str]
    sizes: Mapping[str, Known]
    findings: tuple[Finding, ...]

    @property
    def targets(self) -> dict[str, Header]:
        return {name: header for step in self.steps for name, header in step.targets}

    def size(self, name: str) -> int:
        return self.sizes[name].value


_Place = tuple[int, int, tuple[tuple[str, str], ...]]  # a row, one of its sources, and what its holes stand for


@dataclass(frozen=True)
class _Claim:
    """A row with its holes filled, and which of its sources the checkpoint has."""

    row: Row
    values: tuple[tuple[str, str], ...]
    present: Mapping[int, str]

    @property
    def complete(self) -> bool:
        return len(self.present) == len(self.row.sources)

    @property
    def sources(self) -> tuple[str, ...]:
        return tuple(template.fill(dict(self.values)) for template in self.row.sources)

    @property
    def targets(self) -> tuple[str, ...]:
        return tuple(template.fill(dict(self.values)) for template in self.row.targets)


def apply(table: TensorMap, tensors: Mapping[str, Tensor], sizes: Mapping[str, Known]) -> Mapped:
    """``table`` applied to the headers of a checkpoint; ``sizes`` are what config.json and the verifier fix.

    The result does not depend on the order of ``tensors``. Errors are findings, never exceptions.
    """
    claims, unclaimed = _claim(table, tensors)
    moved = [claim for claim in claims if claim.row.targets and claim.complete]
    moved += [claim for row in table if row.derived and (claim := _derived(row, tensors)).complete]
    laws = [
        Law(name, tensors[name].shape, terms)
        for claim in moved
        if claim.row.laws
        for name, terms in zip(claim.sources, claim.row.laws, strict=True)
    ]
    solved, wrong = solve(laws, sizes)
    findings = [*_unclaimed(unclaimed), *_refused(claims), *_missing(table, claims), *_spelt_twice(moved), *wrong]
    steps: list[Step] = []
    for claim in moved:
        step = _step(claim, tensors, solved)
        (steps if isinstance(step, Step) else findings).append(step)  # type: ignore[arg-type]
    dropped = {c.sources[0]: c.row.because for c in claims if not c.row.targets and not c.row.refused}
    return Mapped(
        steps=tuple(sorted(steps, key=lambda step: step.targets[0][0])),
        dropped=dict(sorted(dropped.items())),
        sizes=solved,
        findings=tuple(sorted(findings, key=lambda f: (f.rule, f.where))),
    )


def _claim(table: TensorMap, tensors: Iterable[str]) -> tuple[list[_Claim], list[str]]:
    groups: dict[tuple[int, tuple[tuple[str, str], ...]], dict[int, str]] = defaultdict(dict)
    unclaimed = []
    plain, holed = _sources(table)
    for name in sorted(tensors):
        hits = (
            (number, position, tuple(sorted(values.items())))
            for number, position, template in holed
            if (values := template.match(name)) is not None
        )
        hit = plain.get(name) or next(hits, None)
        if hit is None:
            unclaimed.append(name)
        else:
            number, position, filled = hit
            groups[number, filled][position] = name
    return [_Claim(table.rows[n], filled, present) for (n, filled), present in groups.items()], unclaimed


def _sources(table: TensorMap) -> tuple[dict[str, _Place], list[tuple[int, int, Template]]]:
    """Where a table takes what from: whole names, which thousands of experts have, and names with holes."""
    plain: dict[str, _Place] = {}
    holed = []
    for number, row in enumerate(table.rows):
        for position, template in enumerate(row.sources) if not row.derived else ():
            if template.holes:
                holed.append((number, position, template))
            else:
                plain[template.text] = number, position, ()
    return plain, holed


def _derived(row: Row, tensors: Iterable[str]) -> _Claim:
    """What is derived claims nothing: other rows account for its sources."""
    return _Claim(row, (), {n: t.text for n, t in enumerate(row.sources) if t.text in tensors})


def _step(claim: _Claim, tensors: Mapping[str, Tensor], sizes: Mapping[str, Known]) -> Step | Finding:
    where = ", ".join(claim.sources)
    headers = [Header(tensors[name].dtype, tensors[name].shape) for name in claim.sources]
    try:
        outputs = claim.row.via.outputs(headers, lambda term: size_of(term, sizes))
    except KeyError as unknown:
        return found("wrong-shape", where=where, message=f"the size {unknown} is not known")
    except ValueError as wrong:
        return found("wrong-shape", where=where, message=str(wrong))
    return Step(sources=claim.sources, targets=tuple(zip(claim.targets, outputs, strict=True)), via=claim.row.via)


def _unclaimed(names: Iterable[str]) -> Iterator[Finding]:
    for name in names:
        yield found(
            "unclaimed-tensor", where=name, message="no row of this format's table names this tensor",
            hint="the checkpoint is of another dialect: `spec-convert detect` shows which formats come near",
        )  # fmt: skip


def _refused(claims: Iterable[_Claim]) -> Iterator[Finding]:
    for claim in claims:
        if claim.row.refused:
            yield found("refused-tensor", where=claim.sources[0], message=claim.row.because)


def _spelt_twice(claims: Iterable[_Claim]) -> Iterator[Finding]:
    writers: dict[str, list[str]] = defaultdict(list)
    for claim in claims:
        for target in claim.targets:
            writers[target].append(", ".join(claim.sources))
    for target, sources in writers.items():
        if len(sources) > 1:
            yield found(
                "two-spellings", where=target, message=f"the file holds it twice, as {' and as '.join(sources)}"
            )


def _missing(table: TensorMap, claims: Sequence[_Claim]) -> Iterator[Finding]:
    """Every row that is not optional must occur, and what is made of several tensors needs all of them."""
    seen = {name for claim in claims for name in claim.present.values()}
    spellings: dict[str, list[str]] = defaultdict(list)
    for key, name in _required(table, claims):
        spellings[key].append(name)
    for claim in claims:
        if claim.row.targets and not claim.complete:
            for name in set(claim.sources) - seen:
                spellings.setdefault(name, [name])
    for alternatives in spellings.values():
        if not seen.intersection(alternatives):
            other = f" (or {', '.join(alternatives[1:])})" if len(alternatives) > 1 else ""
            yield found(
                "missing-tensor", where=alternatives[0], message=f"the format requires it{other}",
                hint="the file is incomplete: download it again, or ask its publisher",
            )  # fmt: skip


def _required(table: TensorMap, claims: Sequence[_Claim]) -> Iterator[tuple[str, str]]:
    """The names that must occur, for each word and layer in use, each under a key that its other spellings share."""
    used = _numbers_in_use(claims)
    for row in table:
        if row.optional or row.derived:
            continue
        for values in _expected(row.sources[0], used):
            if values is None:
                matches = (name for claim in claims if claim.row is row for name in claim.present.values())
                yield row.spelling or row.text, next(matches, row.text)
                continue
            for template in row.sources:
                key = ", ".join(t.fill(values) for t in row.targets) if row.spelling else template.fill(values)
                yield key, template.fill(values)


def _numbers_in_use(claims: Iterable[_Claim]) -> dict[tuple[str, Numbers], set[int]]:
    """The numbers that stand for each hole, e.g. the layers that there are, and the first one skipped among them."""
    used: dict[tuple[str, Numbers], set[int]] = defaultdict(set)
    for claim in claims:
        for hole, value in claim.values:
            numbers = claim.row.sources[0].holes[hole].numbers
            if numbers is not None:
                used[hole, numbers].add(int(value))
    for (_, numbers), values in used.items():
        gap = next(n for n in count(numbers.start, numbers.step) if n not in values)
        if gap < max(values):
            values.add(gap)
    return used


def _expected(template: Template, used: Mapping[tuple[str, Numbers], set[int]]) -> Iterator[dict[str, str] | None]:
    """The ways to fill a template that must occur; None when it only has to match something."""
    options: list[list[str]] = []
    for hole, segment in template.holes.items():
        if segment.numbers is not None:
            options.append([str(n) for n in sorted(used.get((hole, segment.numbers), ()))])
        elif segment.choices:
            options.append(list(segment.choices))
        else:
            yield None
            return
    for values in product(*options):
        yield dict(zip(template.holes, values, strict=True))
