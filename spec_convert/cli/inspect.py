"""`spec-convert inspect`: the tensors of any checkpoint, folded; no format needed."""

from __future__ import annotations

from collections import defaultdict

import click

from spec_convert.cli.output import json_option, show, show_json, show_table
from spec_convert.errors import Exit


@click.command(short_help="Show the tensors of a checkpoint.")
@click.argument("source")
@click.option("--revision", help="Branch, tag or commit of a Hub id.")
@json_option
def inspect(source: str, revision: str | None, as_json: bool) -> Exit:
    """Show names, shapes and dtypes of the tensors in SOURCE.

    Works on any checkpoint, of a known format or not. Reads headers only.
    """
    from spec_convert.open import open_checkpoint
    from spec_convert.reports.escape import one_line
    from spec_convert.reports.fold import fold

    checkpoint = open_checkpoint(source, revision=revision)
    tensors = list(checkpoint.tensors.values())
    total = sum(tensor.nbytes for tensor in tensors)
    if as_json:
        show_json(
            {
                "source": checkpoint.source,
                "revision": checkpoint.files.revision,
                "container": checkpoint.container,
                "weight_files": list(checkpoint.weight_files),
                "config": checkpoint.config,
                "bytes": total,
                "tensors": [
                    {"name": t.name, "dtype": t.dtype, "shape": list(t.shape), "file": t.file} for t in tensors
                ],
            }
        )
        return Exit.CLEAN
    alike: dict[tuple[str, tuple[int, ...]], list[str]] = defaultdict(list)
    for tensor in tensors:
        alike[tensor.dtype, tensor.shape].append(tensor.name)
    rows = [
        (dtype, " x ".join(map(str, shape)), name) for (dtype, shape), names in alike.items() for name in fold(names)
    ]
    show_table(("dtype", "shape", "tensor"), sorted(rows, key=lambda row: row[2]))
    files = one_line(", ".join(checkpoint.weight_files))
    show(f"{len(tensors)} tensors, {total:,} bytes, {checkpoint.container} in {files}")
    return Exit.CLEAN
