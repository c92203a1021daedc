"""`spec-convert plugins`: who is installed, what they bring, and who could not be used and why."""

from __future__ import annotations

from dataclasses import asdict

import click

from spec_convert.cli.output import json_option, show_json, show_table
from spec_convert.errors import Exit


@click.command(short_help="List the installed plugins.")
@json_option
@click.pass_context
def plugins(context: click.Context, as_json: bool) -> Exit:
    """List the plugins: where each comes from, its formats or verbs, and the reason if it could not be used.

    SPEC_CONVERT_DISABLE=name,name leaves plugins out.
    """
    from spec_convert.cli import PluginGroup
    from spec_convert.registry import registry

    if isinstance(cli := context.find_root().command, PluginGroup):
        cli.ask_plugins()
    found = registry().plugins
    if as_json:
        show_json([asdict(plugin) for plugin in found])
    else:
        rows = [(p.name, p.origin, ", ".join((*p.formats, *p.commands)) or "-", p.error or "ok") for p in found]
        show_table(("plugin", "from", "brings", "status"), rows)
    return Exit.CLEAN
