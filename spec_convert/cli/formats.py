"""`spec-convert formats`: which checkpoint layouts are known, and the table of one of them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

import click

from spec_convert.cli.output import json_option, show, show_json, show_table
from spec_convert.errors import Exit

if TYPE_CHECKING:
    from spec_convert.formats import Format
    from spec_convert.tensor_map import Row

STAYS = "what it is"
AS_IT_LIES = "not converted: served as it lies"
NOTHING = "not converted"
TENSORS = "tensors"  # the title of a table that has none


@click.command(short_help="List the known formats, or show one.")
@click.argument("name", required=False)
@json_option
def formats(name: str | None, as_json: bool) -> Exit:
    """List the known formats, or show everything about format NAME: its story and its tensor tables."""
    from spec_convert.registry import registry

    known = registry()
    if name is not None:
        _show_one(known[name], known.provider(name), as_json)
        return Exit.CLEAN
    if as_json:
        show_json([_summary(fmt, known.provider(fmt.name)) for fmt in known.formats.values()])
        return Exit.CLEAN
    rows = [(fmt.name, becomes(fmt), known.provider(fmt.name), fmt.title) for fmt in known.formats.values()]
    show_table(("format", "becomes", "from", "what"), sorted(rows))
    return Exit.CLEAN


def becomes(fmt: Format) -> str:
    """What a checkpoint of this format is turned into, or that it is not."""
    if fmt.unconverted is not None:
        return AS_IT_LIES if fmt.unconverted.served else NOTHING
    return fmt.produces or STAYS


def _summary(fmt: Format, provider: str) -> dict[str, Any]:
    why_not = fmt.unconverted
    return {
        "name": fmt.name,
        "title": fmt.title,
        "produces": fmt.produces,
        "reference": fmt.reference,
        "provider": provider,
        "unconverted": {"because": why_not.because, "instead": why_not.instead} if why_not else None,
    }


def _row(row: Row) -> dict[str, Any]:
    return {
        "source": [template.text for template in row.sources],
        "target": [template.text for template in row.targets],
        "shape": [" ".join(law) for law in row.laws],
        "operation": row.via.name if row.targets else "refuse" if row.refused else "drop",
        "optional": row.optional,
        "because": row.because,
    }


def story(fmt: Format) -> str:
    """What the format tells of itself, or the module that recognises it: `describe` is often another one's."""
    if fmt.story:
        return fmt.story.strip()
    asked: Any = fmt.recognise
    while isinstance(asked, partial):
        asked = asked.func
    return (import_module(asked.__module__).__doc__ or "").strip()


def table_lines(fmt: Format) -> Iterator[str]:
    """The tables of a format as people read them: one line a row."""
    for title, table in fmt.tables.items():
        yield f"\n{title or TENSORS}"
        for row in map(_row, table):
            yield f"  {', '.join(row['source'])}{_fate(row)}"


def _show_one(fmt: Format, provider: str, as_json: bool) -> None:
    if as_json:
        tables = {title or TENSORS: [_row(row) for row in table] for title, table in fmt.tables.items()}
        show_json(_summary(fmt, provider) | {"story": story(fmt), "tables": tables})
        return
    outcome = becomes(fmt) if fmt.unconverted else f"becomes {becomes(fmt)}"
    show(f"{fmt.name}: {fmt.title}\n{outcome}, from {provider}\n{fmt.reference}\n\n{story(fmt)}")
    if fmt.unconverted:
        show(f"\nwhy: {fmt.unconverted.because}\ninstead: {fmt.unconverted.instead}")
    show("\n".join(table_lines(fmt)))


def _fate(row: dict[str, Any]) -> str:
    if not row["target"]:
        return f"  {row['operation']}: {row['because']}"
    arrow = "" if row["target"] == row["source"] else f" -> {', '.join(row['target'])}"
    how = "" if row["operation"] == "copy" else f"  ({row['operation']})"
    shape = f"  [{'; '.join(row['shape'])}]" if row["shape"] else ""
    return f"{arrow}{shape}{how}{'  optional' if row['optional'] else ''}"
