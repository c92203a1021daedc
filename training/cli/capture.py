"""What `generate` and `collect` share on the command line: the options of a capture, and what came of it."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from spec_convert.cli.convert import LayerIds
from spec_convert.cli.output import json_option, show, show_json

if TYPE_CHECKING:
    from spec_convert.training.capture.running import Captured

UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9}


class Size(click.ParamType[int]):
    """`256MB`: a number of bytes, in powers of ten."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        match = re.fullmatch(r"(\d+)(|KB|MB|GB)", str(value).upper())
        if match is None or int(match[1]) == 0:
            self.fail(f"{value!r} is no size, such as 256MB or 1GB", param, ctx)
        return int(match[1]) * UNITS[match[2]]


OPTIONS = (
    click.argument("data", type=click.Path(path_type=Path, file_okay=False)),
    click.argument("output", type=click.Path(path_type=Path, file_okay=False)),
    click.option(
        "--verifier", metavar="BASE", help="The model whose states are captured. Default: as DATA was prepared for."
    ),
    click.option(
        "--layers", "layer_ids", metavar="IDS", type=LayerIds(),
        help="Boundary ids in ascending order. Default: 2, N/2, N-3 and N, of N layers; with servers, theirs.",
    ),
    click.option(
        "--dtype", type=click.Choice(["bfloat16", "float16", "float32"]), default="bfloat16", show_default=True,
        help="Of the states on disk.",
    ),
    click.option("--max-samples", metavar="N", type=click.IntRange(min=1), help="Stop after so many samples."),
    click.option("--target-tokens", metavar="N", type=click.IntRange(min=1), help="Stop at so many tokens."),
    click.option(
        "--shard-size", "shard_bytes", metavar="SIZE", type=Size(), default="256MB", show_default=True,
        help="Of each file; what is lost at most when the run is killed.",
    ),
    click.option(
        "--layout", type=click.Choice(["shards", "pt"]), default="shards", show_default=True,
        help="pt: the community's files, data_0.pt and so on.",
    ),
    json_option,
)  # fmt: skip


def capture_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """DATA, OUTPUT, and `verifier, layer_ids, dtype, max_samples, target_tokens, shard_bytes, layout, as_json`."""
    return reduce(lambda decorated, option: option(decorated), reversed(OPTIONS), command)


def show_captured(captured: Captured, *, as_json: bool) -> None:
    if as_json:
        show_json(captured.to_json())
        return
    from spec_convert.training.capture.estimate import readable

    show(f"output      {captured.output}")
    show(f"engine      {captured.engine}")
    show(f"samples     {captured.samples:,}, {captured.left_out['duplicates']:,} duplicates left out")
    show(f"tokens      {captured.tokens:,} in {captured.shards:,} shards")
    states = captured.state_bytes_per_token
    show(f"bytes       {readable(captured.bytes)}: {captured.bytes_per_token:,.0f} a token, its states {states:,}")
    if captured.tokens_per_second is None:
        show("speed       everything was there already")
    else:
        speed = f"{captured.tokens_per_second:,.0f} tokens/s: {captured.new_tokens:,} in {captured.seconds:,.1f} s"
        show(f"speed       {speed}")
