"""The two hooks of a spec_convert plugin."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    import click

    from spec_convert.formats import Format

GROUP = "spec_convert"

hookspec = pluggy.HookspecMarker(GROUP)
hookimpl = pluggy.HookimplMarker(GROUP)


@hookspec
def spec_convert_formats() -> Iterable[Format]:  # type: ignore[empty-body]
    """The formats that this plugin teaches every command."""


@hookspec
def spec_convert_commands(cli: click.Group) -> None:
    """Add verbs to the command line: ``cli.add_command(…)``."""
