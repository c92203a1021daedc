"""`spec-convert generate`: the verifier's hidden states of prepared conversations, from a model that runs here."""

from __future__ import annotations

from typing import Any

import click

from spec_convert.cli.evaluate import llm_arguments
from spec_convert.training.cli.capture import capture_options, show_captured


@click.command(short_help="Capture the verifier's hidden states of prepared conversations.")
@capture_options
@click.option("--engine", type=click.Choice(["transformers", "vllm"]), help="Default: vllm where it is installed.")
@click.option(
    "--compute-dtype",
    type=click.Choice(["auto", "float32", "bfloat16", "float16"]),
    default="auto",
    show_default=True,
    help="Of the verifier at work; auto: as its weights are stored.",
)
@click.option(
    "--batching",
    type=click.Choice(["padded", "packed"]),
    help="With transformers: one text a row, or several end to end. Default: padded.",
)
@click.option(
    "--batch-tokens",
    metavar="N",
    type=click.IntRange(min=1),
    help="With transformers: how many tokens are read at once. Default: 2048.",
)
@click.option("--device", metavar="D", help="With transformers. Default: cuda, mps or cpu, the first that is there.")
@click.option("--tensor-parallel-size", metavar="N", type=click.IntRange(min=1), help="With vllm: over so many GPUs.")
@llm_arguments("max_num_seqs=64")
@click.option("--verbose", is_flag=True, help="With vllm: show what it prints.")
def generate(llm_args: tuple[tuple[str, Any], ...], *, as_json: bool, **flags: Any) -> None:
    """Write the verifier's hidden states of the samples in DATA, which `prepare` wrote, into the folder OUTPUT.

    Layer ids are boundary ids: id k is what enters layer k, and the number of layers what leaves the last one, before
    the final norm. A text that comes twice is captured once.

    A run that was interrupted goes on when the same command is given again, and ends with the same files. OUTPUT is
    checked for room before the start.
    """
    from spec_convert.training.capture.generating import generate as run

    show_captured(run(llm_args=dict(llm_args), **flags), as_json=as_json)
