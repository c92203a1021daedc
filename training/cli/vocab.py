"""`spec-convert vocab`."""

from __future__ import annotations

import click

from spec_convert.errors import UsageError


@click.command(short_help="Being written.")
def vocab() -> None:
    """Being written."""
    raise UsageError("being written")
