"""`spec-convert generate`."""

from __future__ import annotations

import click

from spec_convert.errors import UsageError


@click.command(short_help="Being written.")
def generate() -> None:
    """Being written."""
    raise UsageError("being written")
