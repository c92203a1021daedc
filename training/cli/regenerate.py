"""`spec-convert regenerate`."""

from __future__ import annotations

import click

from spec_convert.errors import UsageError


@click.command(short_help="Being written.")
def regenerate() -> None:
    """Being written."""
    raise UsageError("being written")
