"""`spec-convert collect`."""

from __future__ import annotations

import click

from spec_convert.errors import UsageError


@click.command(short_help="Being written.")
def collect() -> None:
    """Being written."""
    raise UsageError("being written")
