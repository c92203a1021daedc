"""Which format a checkpoint is of: all formats are asked, and two that fit equally well are a finding."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spec_convert.checkpoint import Checkpoint
from spec_convert.errors import Refused
from spec_convert.evidence import Evidence, failed
from spec_convert.findings import Finding
from spec_convert.formats import Format
from spec_convert.open import open_checkpoint
from spec_convert.registry import Registry, registry
from spec_convert.rules import found
from spec_convert.tracing import trace, tracing


@dataclass(frozen=True, kw_only=True)
class Detection:
    """The winner with its evidence, what it sees in the checkpoint, and what every format said."""

    checkpoint: Checkpoint
    winner: Format
    provider: str
    evidence: Evidence
    asked: Mapping[str, Evidence]
    strangers: Mapping[str, str]  # formats of other providers that claim the checkpoint too, and who brings them
    silent: tuple[Finding, ...]  # formats that could not be asked

    @property
    def format(self) -> str:
        return self.winner.name

    @property
    def confidence(self) -> float:
        return self.evidence.confidence

    @property
    def findings(self) -> list[Finding]:
        """What is odd about the detection itself: a format taken by force, a plugin that could not be asked."""
        where = self.checkpoint.source
        odd = list(self.silent)
        if not self.confidence:
            against = "; ".join(self.evidence.against)
            odd.append(found("format-forced", where=where, message=f"`{self.format}` fails on: {against}"))
        ours = f"`{self.format}` (from {self.provider})"
        return odd + [
            found(
                "also-claimed", where=where, hint=f"if that is what the checkpoint is: {_by_force(name)}",
                message=f"taken for {ours}; `{name}` (from {provider}) claims it too, with less evidence",
            )
            for name, provider in self.strangers.items()
        ]  # fmt: skip

    @property
    def inside_target(self) -> bool:
        """Whether the draft is a part of the model that it drafts for."""
        return self.winner.inside_target(self.checkpoint)

    @property
    def features(self) -> Mapping[str, Any]:
        seen, unconverted = self.winner.features(self.checkpoint), self.winner.unconverted
        return seen if unconverted is None else {**seen, **unconverted.features(self.checkpoint)}

    def to_json(self) -> dict[str, Any]:
        """The contract of `detect --json`."""
        others = {n: e for n, e in self.asked.items() if e.confidence and n != self.format}
        return {
            "format": self.format,
            "confidence": self.confidence,
            "evidence": {"for": list(self.evidence.supports), "against": list(self.evidence.against)},
            "features": dict(self.features),
            "also_possible": {name: evidence.confidence for name, evidence in sorted(others.items())},
            "findings": [finding.to_json() for finding in self.findings],
            "source": self.checkpoint.source,
            "revision": self.checkpoint.files.revision,
            "container": self.checkpoint.container,
            "weight_files": list(self.checkpoint.weight_files),
        }


def detect(source: str | Path, *, revision: str | None = None) -> Detection:
    """Recognise the draft checkpoint at ``source``: a folder, a file, ``org/name[@revision]`` or ``hf://…``.

    Reads headers only; nothing is downloaded. Raises Unreadable, or Refused when no format or more than one fits.
    """
    return recognise(open_checkpoint(source, revision=revision))


def recognise(checkpoint: Checkpoint, *, among: Registry | None = None, forced: str | None = None) -> Detection:
    """The format of an opened checkpoint. ``forced`` names the format to take whatever the evidence says."""
    known = among or registry()
    if forced is not None:
        asked = {forced: ask(known[forced], known.provider(forced), checkpoint)}
        return _detection(checkpoint, forced, asked, known)
    asked = ask_all(checkpoint, known)
    ranked = sorted(asked, key=lambda name: (-asked[name].confidence, name))
    if not ranked or not asked[ranked[0]].confidence:
        raise Refused([_unknown(checkpoint, asked, known), *_silent(checkpoint, asked, known)])
    winner = ranked[0]
    rivals = [name for name in ranked if asked[name].confidence == asked[winner].confidence]
    if len(rivals) > 1:
        raise Refused([_contested(checkpoint, rivals, known), *_silent(checkpoint, asked, known)])
    return _detection(checkpoint, winner, asked, known)


def ask_all(checkpoint: Checkpoint, known: Registry) -> dict[str, Evidence]:
    """What every format says. A claim of one that only recognises does not count beside one that converts."""
    asked = {name: ask(fmt, known.provider(name), checkpoint) for name, fmt in known.formats.items()}
    converts = {name for name in asked if known[name].unconverted is None}
    if not any(asked[name].confidence for name in converts):
        return asked
    return {name: said for name, said in asked.items() if name in converts or not said.confidence}


def ask(fmt: Format, provider: str, checkpoint: Checkpoint) -> Evidence:
    """What one format says of a checkpoint. One that cannot answer is `failed`, with the reason."""
    try:
        said = _sound(fmt.recognise(checkpoint))
    except (Exception, SystemExit) as reason:  # a plugin may raise anything at all: it is left out, a finding says why
        said = failed(f"{type(reason).__name__}: {reason}")
    if tracing():
        signs = [f"+ {words}" for words in said.supports if said.confidence] + [f"- {words}" for words in said.against]
        trace(f"recognise: {fmt.name} (from {provider}) answers {said.confidence:g}: {'; '.join(signs) or 'no signs'}")
    return said


def _sound(said: Evidence) -> Evidence:
    """The answer itself, if it can be compared with others."""
    if not isinstance(said, Evidence):
        raise TypeError(f"it returned {said!r}, which is no Evidence")
    if not 0 <= said.confidence <= 1:
        raise ValueError(f"its confidence is {said.confidence!r}, not between 0 and 1")
    return said


def _detection(checkpoint: Checkpoint, name: str, asked: Mapping[str, Evidence], known: Registry) -> Detection:
    provider = known.provider(name)
    trace(f"recognise: taken for {name} (from {provider})")
    others = {other: known.provider(other) for other, said in sorted(asked.items()) if said.confidence}
    return Detection(
        checkpoint=checkpoint, winner=known[name], provider=provider, evidence=asked[name], asked=asked,
        strangers={other: brings for other, brings in others.items() if brings != provider},
        silent=tuple(_silent(checkpoint, asked, known)),
    )  # fmt: skip


def _silent(checkpoint: Checkpoint, asked: Mapping[str, Evidence], known: Registry) -> list[Finding]:
    """The formats that could not be asked: the right one may be among them."""
    return [
        found(
            "plugin-failed", where=checkpoint.source,
            message=f"`{name}` (from {known.provider(name)}) could not look: {said.failure}",
        )
        for name, said in sorted(asked.items())
        if said.failure
    ]  # fmt: skip


def _by_force(name: str) -> str:
    return f"`spec-convert convert … --format {name}`"


def _unknown(checkpoint: Checkpoint, asked: Mapping[str, Evidence], known: Registry) -> Finding:
    kind = checkpoint.get("speculators_model_type")
    if kind is not None and kind not in known.types:
        message = f"unified drafts of type {kind!r} are not known here"
        hint = f"known are {', '.join(known.types)}; a plugin can bring others"
        return found("unknown-unified-type", where="config.json", message=message, hint=hint)
    names = sorted(checkpoint.tensors)
    shown = ", ".join(names[:4]) + (f", … ({len(names)} tensors)" if len(names) > 4 else "")
    seen = f"architecture {checkpoint.architecture or 'not given'}, tensors {shown}"
    if not asked:
        return found("unknown-format", where=checkpoint.source, message=f"no format is installed; seen: {seen}")
    convert = [name for name in asked if known[name].unconverted is None] or list(asked)
    nearest = max(convert, key=lambda name: (asked[name].nearness, name))
    why = "; ".join(asked[nearest].against) or "nothing speaks for it"
    return found(
        "unknown-format", where=checkpoint.source,
        message=f"no known format fits; seen: {seen}; the nearest is `{nearest}`, which fails on: {why}",
        hint=f"if it is one, say so: {_by_force(nearest)}; `spec-convert formats` lists what is known",
    )  # fmt: skip


def _contested(checkpoint: Checkpoint, rivals: list[str], known: Registry) -> Finding:
    claims = " and ".join(f"`{name}` (from {known.provider(name)})" for name in rivals)
    return found(
        "two-formats", where=checkpoint.source, message=f"equally well claimed by {claims}",
        hint=f"settle it with {_by_force(rivals[0])}, or switch one plugin off with SPEC_CONVERT_DISABLE",
    )  # fmt: skip
