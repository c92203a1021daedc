"""What a run was asked for, setting by setting, and what it was made of: data, drafts, checksums, versions, dates."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from spec_convert.reports.escape import finite
from spec_convert.reports.markup import Element
from spec_convert.reports.page import facts, in_columns, section, side_by_side, table
from spec_convert.training.report.drafts import SavedDraft
from spec_convert.training.report.run import Run
from spec_convert.training.store.manifest import Manifest

ROWS = 60  # of a table; the JSON has the rest
LONG = 400  # letters of a setting
MANY = 4  # settings, for a table of their own


def settings_section(run: Run) -> Element | None:
    """None: nothing is known of them."""
    tables = list(_settings(run))
    return section("What was asked for", in_columns(*tables)) if tables else None


def _settings(run: Run) -> Iterator[Element]:
    if run.record:
        yield from _listed("Run", run.record.settings)
    if run.training and run.training.request:
        yield from _listed("Training", run.training.request)


def _listed(title: str, settings: Mapping[str, Any]) -> Iterator[Element]:
    """Settings that hold settings have a table of their own, as long as there are many of them."""
    grouped = {name: inner for name, inner in settings.items() if isinstance(inner, Mapping) and len(inner) >= MANY}
    plain = {name: value for name, value in settings.items() if name not in grouped}
    if plain:
        yield table(title, ["Setting", "Value"], capped(list(flat(plain))), words=True)
    for name, inner in grouped.items():
        yield from _listed(f"{title}: {name}", inner)


def flat(settings: Mapping[str, Any], before: str = "") -> Iterator[list[str]]:
    """Settings inside settings by dotted names, each with its value as JSON has it; text as it is."""
    for name, value in settings.items():
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{before}{name}.")
        else:
            text = value if isinstance(value, str) else json.dumps(finite(value))
            yield [f"{before}{name}", text if len(text) <= LONG else f"{text[:LONG]} … (all of it is in the JSON)"]


def provenance_section(run: Run) -> Element:
    return section("What it was made of", facts(list(_facts(run))), side_by_side(*_tables(run)))


def _facts(run: Run) -> Iterator[tuple[str, str]]:
    yield "Folder", str(run.folder.absolute())
    request = (run.training.request if run.training else None) or {}
    if "verifier" in request:
        yield "Verifier", str(request["verifier"])
    identities = {str(data.request["verifier"]): None for data in run.data.values() if "verifier" in data.request}
    if identities:
        yield "Verifier's identity", ", ".join(identities)
    tokenizers = {f"{data.tokenizer.name}, {data.tokenizer.fingerprint}": None for data in run.data.values()}
    if tokenizers:
        yield "Tokenizer and its fingerprint", "; ".join(tokenizers)
    if request.get("from_pretrained"):
        yield "Began with the draft", str(request["from_pretrained"])
    if run.record:
        yield "Run by", f"spec-convert {run.record.spec_convert}"
    if run.training and run.training.changed:
        yield "Last line of the training", run.training.changed
    yield "Read for this page", f"{run.read}, by spec-convert {run.version}"


def _tables(run: Run) -> Iterator[Element]:
    if run.data:
        heads = ["Data", "Kind", "Shards", "Made with", "Counts"]
        yield table("Data", heads, [_data(place, one) for place, one in run.data.items()], wide=True, words=True)
    drafts = run.training.drafts if run.training else ()
    if drafts:
        heads = ["Draft", "After step", "Epoch", "Kind", "Written (UTC)", "Of the data", "By"]
        yield table("Drafts", heads, capped([_draft(draft) for draft in drafts]), wide=True, words=True)
    files = [*_files(run), *_files_of_drafts(drafts)]
    if files:
        yield table("Checksums", ["File", "Bytes", "sha256"], capped(files), wide=True, words=True)


def _data(place: str, manifest: Manifest) -> list[str]:
    made = ", ".join(f"{name} {value}" for name, value in manifest.made_with.items()) or "not said"
    counts = ", ".join(f"{name} {count:,}" for name, count in manifest.counts.items()) or "none"
    done = f"{len(manifest.shards):,} of {manifest.planned_shards:,}"
    return [place, manifest.kind.replace("_", " "), done, made, counts]


def _draft(draft: SavedDraft) -> list[str]:
    conversion = draft.conversion or {}
    trained = conversion.get("trained")
    trained = trained if isinstance(trained, Mapping) else {}
    versions = conversion.get("versions")
    by = ", ".join(f"{name} {one}" for name, one in versions.items()) if isinstance(versions, Mapping) else "not said"
    step, epoch, kind, data = (str(trained.get(key, "not said")) for key in ("step", "epoch", "kind", "data"))
    return [f"{draft.name}{' (best)' if draft.best else ''}", step, epoch, kind, draft.written, data, by]


def _files(run: Run) -> Iterator[list[str]]:
    for place, manifest in run.data.items():
        for shard in manifest.shards:
            yield [f"{place}/{shard.file}", f"{shard.bytes:,}", shard.sha256]


def _files_of_drafts(drafts: Sequence[SavedDraft]) -> Iterator[list[str]]:
    for draft in drafts:
        for file in draft.files:
            yield [f"{draft.name}/{file.name}", f"{file.bytes:,}", file.sha256]


def capped(rows: list[list[str]]) -> list[list[str]]:
    """The first and a row that says how many are left to the JSON."""
    if len(rows) <= ROWS:
        return rows
    rest = ["in the JSON of this page"] * (len(rows[0]) - 1)
    return [*rows[:ROWS], [f"and {len(rows) - ROWS:,} more", *rest]]
