"""`spec-convert schema`: the JSON Schemas of what spec_convert reads and writes."""

from __future__ import annotations

import click

from spec_convert.cli.output import json_option, show, show_json
from spec_convert.errors import Exit, unknown_name


@click.command(short_help="Print a JSON Schema.")
@click.argument("name", required=False)
@json_option
def schema(name: str | None, as_json: bool) -> Exit:
    """Print the JSON Schema NAME, or list the schemas there are."""
    from spec_convert.published import SCHEMAS, schema_of

    if name is None:
        if as_json:
            show_json(sorted(SCHEMAS))
        else:
            show("\n".join(sorted(SCHEMAS)))
        return Exit.CLEAN
    if name not in SCHEMAS:
        raise unknown_name("schema", name, SCHEMAS, "spec-convert schema")
    show_json(schema_of(name))
    return Exit.CLEAN
