"""`spec-convert export`: a unified directory in the native layout of a server or library."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from spec_convert.cli.output import json_option, refused_json, show, show_findings, show_json, show_plan
from spec_convert.errors import Exit, Refused, Unreadable

if TYPE_CHECKING:
    from spec_convert.exporting import Exported


class Target(click.ParamType[str]):
    """A target that some installed format writes. The plugins are asked only when the option is used or shown."""

    name = "target"

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        return f"[{'|'.join(_targets())}]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if value not in (known := _targets()):
            self.fail(f"{value!r} is not one of {', '.join(known)}", param, ctx)
        return str(value)


def _targets() -> list[str]:
    from spec_convert.registry import registry

    return registry().targets


@click.command(short_help="Write a unified directory in a native layout.")
@click.argument("unified")
@click.argument("output", type=click.Path(path_type=Path))
@click.option("--to", type=Target(), required=True, help="Who is to read the result.")
@click.option("--verifier", metavar="BASE", help="The model that the draft was trained for. Default: as UNIFIED says.")
@click.option("--revision", help="Branch, tag or commit of a Hub id.")
@click.option("--dtype", type=click.Choice(["float32", "float16", "bfloat16"]), help="Cast the weights.")
@click.option("--max-shard-size", metavar="SIZE", help="Split weights above this, as in 5GB. Default: 50GB.")
@click.option("--dry-run", is_flag=True, help="Show what would be done; write nothing, so read nothing back.")
@click.option("--force", is_flag=True, help="Replace OUTPUT if it exists.")
@json_option
def export(unified: str, output: Path, as_json: bool, **flags: Any) -> Exit:
    """Write the unified directory UNIFIED as OUTPUT, in the layout that the target reads natively.

    What the target's code does not compute is refused with the reason. Before OUTPUT appears it is converted again,
    and must give the same config and the same bytes; where the target needs other tensors, the result says which.
    """
    from spec_convert.exporting import export as run

    started = time.monotonic()
    try:
        done = run(unified, output, **flags)
    except (Refused, Unreadable) as problem:
        if as_json:
            show_json(refused_json(problem, started=started) | {"target": flags["to"], "exact": None, "changed": {}})
        raise
    if as_json:
        show_json(done.to_json())
    else:
        _tell(done)
    return Exit.CLEAN


def _tell(done: Exported) -> None:
    show_findings(done.findings)
    if not done.written:
        show_plan(done.plan)
        return
    how = "reads back bit by bit" if done.exact else "reads back with the changes that are noted"
    show(f"{done.output}: {done.format} for {done.target}, {how}, {done.seconds:.1f} s")
