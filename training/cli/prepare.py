"""`spec-convert prepare`."""

from __future__ import annotations

import click

from spec_convert.errors import UsageError


@click.command(short_help="Being written.")
def prepare() -> None:
    """Being written."""
    raise UsageError("being written")
