"""`spec-convert convert`: from a published draft to a unified directory."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from spec_convert.cli.output import json_option, show_findings, show_json
from spec_convert.errors import Exit, Refused

if TYPE_CHECKING:
    from spec_convert.conversion import Conversion


class LayerIds(click.ParamType[tuple[int, ...]]):
    """`2,16,29`"""

    name = "ids"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        try:
            return tuple(int(part) for part in str(value).split(","))
        except ValueError:
            self.fail(f"{value!r} is no list of layer numbers like 2,16,29", param, ctx)


@click.command(short_help="Turn a draft into a unified directory.")
@click.argument("source")
@click.argument("output", type=click.Path(path_type=Path))
@click.option("--verifier", metavar="BASE", help="The model that the draft was trained for: a folder or Hub id.")
@click.option("--revision", help="Branch, tag or commit of a Hub id.")
@click.option("--format", "format_", metavar="NAME", help="Take this format, whatever detection says.")
@click.option("--layernorms/--no-layernorms", default=None, help="Default: as the tensors have them.")
@click.option("--fusion-bias/--no-fusion-bias", default=None, help="Default: as the tensors have it.")
@click.option("--norm-before-residual/--no-norm-before-residual", default=None, help="EAGLE-3: the residual is normed.")
@click.option("--aux-layer-ids", type=LayerIds(), help="EAGLE-3: boundary ids, k for the input of layer k.")
@click.option(
    "--rope-theta", type=click.FloatRange(min=0, min_open=True), help="The base that the draft was trained with."
)
@click.option("--speculative-tokens", type=click.IntRange(min=1), help="How many tokens servers propose. [default: 3]")
@click.option("--dtype", type=click.Choice(["float32", "float16", "bfloat16"]), help="Cast the weights.")
@click.option("--validate/--no-validate", default=False, help="Also run the reference draft before it is saved.")
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

    try:
        done = run(source, output, format=format_, **flags)
    except Refused as refusal:
        if as_json:
            show_json(_refusal(source, refusal))
        raise
    if as_json:
        show_json(done.to_json())
    else:
        _tell(done)
    return Exit.CLEAN


def _refusal(source: str, refusal: Refused) -> dict[str, Any]:
    from spec_convert.plan import finding_json

    findings = [finding_json(finding) for finding in refusal.findings]
    return {"output": None, "format": None, "findings": findings, "tensors": None, "seconds": None, "source": source}


def _tell(done: Conversion) -> None:
    show_findings(done.findings)
    tensors = done.plan.tensors_json()
    if not done.written:
        for moved in tensors["moved"]:
            shape = " x ".join(map(str, moved["shape"]))
            click.echo(
                f"{moved['operation']}  {', '.join(moved['sources'])} -> {moved['target']}  {moved['dtype']} {shape}"
            )
        for name, reason in tensors["dropped"].items():
            click.echo(f"drop  {name}: {reason}")
        click.echo(done.plan.config_text, nl=False)
        return
    click.echo(
        f"{done.output}: {done.format}, {len(tensors['moved'])} tensors written, {len(tensors['dropped'])} dropped, "
        f"{done.seconds:.1f} s"
    )
