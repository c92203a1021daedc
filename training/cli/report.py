"""`spec-convert report`: the folder of a run as one page."""

from __future__ import annotations

from pathlib import Path

import click

from spec_convert.cli.output import json_option, show, show_json


@click.command(short_help="Show a run as one page.")
@click.argument("folder", metavar="RUN", type=click.Path(path_type=Path))
@click.option(
    "--output", metavar="FILE", type=click.Path(path_type=Path, dir_okay=False),
    help="Where the page goes. Default: report.html in RUN.",
)  # fmt: skip
@json_option
def report(folder: Path, output: Path | None, as_json: bool) -> None:
    """Write one HTML page of all that lies in RUN: the folder of `pipeline` or `demo`, or the --save-path of `train`.

    It shows how the draft learned, step by step and position by position, its vocabulary, how well it drafts, what
    validation found, every setting, and what the run was made of, with checksums. What is not in the folder is named
    with the command that makes it. The page needs no network and no other file.

    A run that is going on is shown as far as it is. With --json the same is printed, and a page is written only where
    --output says so.
    """
    from spec_convert.training.report.run import read_run
    from spec_convert.training.report.writing import write_page

    run = read_run(folder)
    if output is not None or not as_json:
        written = write_page(run, output)
    if as_json:
        show_json(run.to_json())
    else:
        show(f"report      {written}")
