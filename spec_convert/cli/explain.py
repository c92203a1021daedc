"""`spec-convert explain`: what a finding means, why it matters and what to do about it."""

from __future__ import annotations

from dataclasses import asdict

import click

from spec_convert.cli.output import json_option, show, show_json, show_table
from spec_convert.errors import Exit, unknown_name
from spec_convert.rules import RULES


@click.command(short_help="What a finding means and what to do.")
@click.argument("rule", required=False)
@json_option
def explain(rule: str | None, as_json: bool) -> Exit:
    """Explain the finding RULE, or list all rules."""
    if rule is None:
        if as_json:
            show_json([asdict(entry) for entry in RULES.values()])
        else:
            show_table(("rule", "level", "what"), [(r.code, r.level, r.says) for r in RULES.values()])
        return Exit.CLEAN
    if rule not in RULES:
        raise unknown_name("rule", rule, RULES, "spec-convert explain")
    entry = RULES[rule]
    if as_json:
        show_json(asdict(entry))
    else:
        show(f"{entry.code} ({entry.level})\n\n{entry.says}.\n\nWhy it matters: {entry.why}.\nWhat to do: {entry.do}.")
    return Exit.CLEAN
