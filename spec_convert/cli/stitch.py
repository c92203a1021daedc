"""`spec-convert stitch`: an MTP head back into its target."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from spec_convert.cli.output import json_option, show, show_findings, show_json
from spec_convert.errors import Exit, Refused, Unreadable

if TYPE_CHECKING:
    from spec_convert.stitching import Stitched


@click.command(short_help="Put an MTP head back into its target.")
@click.argument("unified")
@click.argument("output", type=click.Path(path_type=Path))
@click.option("--verifier", metavar="BASE", help="The target that the head belongs to. Default: as UNIFIED says.")
@click.option("--revision", help="Branch, tag or commit of a Hub id.")
@click.option("--dry-run", is_flag=True, help="Show what would be replaced; write nothing.")
@click.option("--force", is_flag=True, help="Replace OUTPUT if it exists.")
@json_option
def stitch(unified: str, output: Path, as_json: bool, **flags: Any) -> Exit:
    """Write OUTPUT: the target of the MTP head UNIFIED, with this head in the place of its own.

    Every other byte of the target stays as it is, its index too; files that hold nothing of the head are hard links
    where the disk allows it. Subfolders of the target are left out. Before OUTPUT appears the head is extracted from
    it again, and must be UNIFIED, byte by byte.
    """
    from spec_convert.stitching import stitch as run

    started = time.monotonic()
    try:
        done = run(unified, output, **flags)
    except (Refused, Unreadable) as problem:
        if as_json:
            show_json(_refused(problem, started))
        raise
    if as_json:
        show_json(done.to_json())
    else:
        _tell(done)
    return Exit.CLEAN


def _refused(problem: Refused | Unreadable, started: float) -> dict[str, Any]:
    """The keys and types of the document of a stitching, when nothing was written."""
    return {
        "output": None,
        "target": None,
        "replaced": [],
        "findings": [finding.to_json() for finding in problem.findings],
        "seconds": round(time.monotonic() - started, 3),
        "written": False,
    }


def _tell(done: Stitched) -> None:
    show_findings(done.findings)
    what = f"{len(done.replaced)} tensors of {done.target}"
    if not done.written:
        show(f"would replace {what}: {', '.join(done.replaced)}")
        return
    show(f"{done.output}: {what} replaced, {done.seconds:.1f} s")
    speculative = f'{{"method": "mtp", "num_speculative_tokens": {done.tokens}}}'
    show(f"vllm serve {done.output} --speculative-config '{speculative}'")
