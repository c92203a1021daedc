"""`spec-convert convert`: from a published draft to a unified directory."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from spec_convert.cli.output import json_option, refused_json, show, show_findings, show_json, show_plan
from spec_convert.errors import Exit, Refused, Unreadable

if TYPE_CHECKING:
    from spec_convert.conversion import Conversion


class LayerIds(click.ParamType[tuple[int, ...]]):
    """`2,16,29`, or the same numbers as a list of a batch manifest."""

    name = "ids"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        try:
            return tuple(int(str(part)) for part in (value if isinstance(value, list) else str(value).split(",")))
        except ValueError:
            self.fail(f"{value!r} is no list of layer numbers like 2,16,29", param, ctx)


@click.command(short_help="Turn a draft into a unified directory.")
@click.argument("source")
@click.argument("output", type=click.Path(path_type=Path))
@click.option("--verifier", metavar="BASE", help="The model that the draft was trained for: a folder or Hub id.")
@click.option("--revision", help="Branch, tag or commit of a Hub id.")
@click.option("--format", "format_", metavar="NAME", help="Take this format, whatever detection says.")
@click.option("--layernorms/--no-layernorms", default=None, help="Extra layernorms. Default: as the tensors say.")
@click.option("--fusion-bias/--no-fusion-bias", default=None, help="fc.bias. Default: as the tensors say.")
@click.option(
    "--norm-before-residual/--no-norm-before-residual",
    default=None,
    help="EAGLE-3: whether the residual is taken after hidden_norm.",
)
@click.option("--aux-layer-ids", type=LayerIds(), help="EAGLE-3: boundary ids, k for the input of layer k.")
@click.option(
    "--aux-layer-convention",
    type=click.Choice(["boundary", "output"]),
    help="EAGLE-3: whether ids in config.json count inputs or outputs of layers.",
)
@click.option(
    "--rope-theta",
    metavar="X",
    type=click.FloatRange(min=0, min_open=True),
    help="The rope base that the draft was trained with.",
)
@click.option(
    "--speculative-tokens", metavar="N", type=click.IntRange(min=1), help="How many tokens servers propose. Default: 3."
)
@click.option("--dtype", type=click.Choice(["float32", "float16", "bfloat16"]), help="Cast the weights.")
@click.option("--max-shard-size", metavar="SIZE", help="Split weights above this, as in 5GB. Default: 50GB.")
@click.option("--validate/--no-validate", default=False, help="Run the reference draft before anything is saved.")
@click.option("--dry-run", is_flag=True, help="Show what would be done; write nothing.")
@click.option("--force", is_flag=True, help="Replace OUTPUT if it exists.")
@click.option("--push-to-hub", metavar="ID", help="Upload the result to this Hub repository.")
@json_option
def convert(source: str, output: Path, format_: str | None, as_json: bool, **flags: Any) -> Exit:
    """Turn the draft checkpoint SOURCE into the unified directory OUTPUT.

    Every tensor is moved, or dropped for a stated reason; every fact comes from the checkpoint, the verifier or a
    flag. Refuses with a reason what cannot be represented. OUTPUT appears whole or not at all.
    """
    from spec_convert.conversion import convert as run

    started = time.monotonic()
    try:
        done = run(source, output, format=format_, **flags)
    except (Refused, Unreadable) as problem:
        if as_json:
            show_json(refused_json(problem, started=started) | {"pushed_to": None})
        raise
    if as_json:
        show_json(done.to_json())
    else:
        _tell(done)
    return Exit.CLEAN


def _tell(done: Conversion) -> None:
    show_findings(done.findings)
    if not done.written:
        show_plan(done.plan)
        return
    tensors = done.plan.tensors_json()
    show(
        f"{done.output}: {done.format}, {len(tensors['moved'])} tensors written, {len(tensors['dropped'])} dropped, "
        f"{done.seconds:.1f} s"
    )
