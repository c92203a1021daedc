"""`spec-convert formats`: which checkpoint layouts are known, and the table of one of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from spec_convert.cli.output import json_option, show, show_json, show_table
from spec_convert.errors import Exit

if TYPE_CHECKING:
    from spec_convert.formats import Format
    from spec_convert.tensor_map import Row

STAYS = "what it is"


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
    rows = [(fmt.name, fmt.produces or STAYS, known.provider(fmt.name), fmt.title) for fmt in known.formats.values()]
    show_table(("format", "becomes", "from", "what"), sorted(rows))
    return Exit.CLEAN


def _summary(fmt: Format, provider: str) -> dict[str, Any]:
    return {
        "name": fmt.name,
        "title": fmt.title,
        "produces": fmt.produces,
        "reference": fmt.reference,
        "provider": provider,
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


def _show_one(fmt: Format, provider: str, as_json: bool) -> None:
    tables = {title or "tensors": [_row(row) for row in table] for title, table in fmt.tables.items()}
    story = (__import__(fmt.describe.__module__, fromlist=["__doc__"]).__doc__ or "").strip()
    if as_json:
        show_json(_summary(fmt, provider) | {"story": story, "tables": tables})
        return
    show(f"{fmt.name}: {fmt.title}\nbecomes {fmt.produces or STAYS}, from {provider}\n{fmt.reference}\n\n{story}")
    for title, rows in tables.items():
        show(f"\n{title}")
        for row in rows:
            show(f"  {', '.join(row['source'])}{_fate(row)}")


def _fate(row: dict[str, Any]) -> str:
    if not row["target"]:
        return f"  {row['operation']}: {row['because']}"
    arrow = "" if row["target"] == row["source"] else f" -> {', '.join(row['target'])}"
    how = "" if row["operation"] == "copy" else f"  ({row['operation']})"
    shape = f"  [{'; '.join(row['shape'])}]" if row["shape"] else ""
    return f"{arrow}{shape}{how}{'  optional' if row['optional'] else ''}"
