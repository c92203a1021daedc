"""`spec-convert batch`: many conversions from one file; one failure does not stop the rest."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from inspect import signature
from pathlib import Path
from typing import Any

import click

from spec_convert.cli.output import json_option, show_error, show_json, show_table
from spec_convert.errors import Exit, SpecConvertError, UsageError

EXAMPLE = """in TOML:
  [defaults]
  verifier = "meta-llama/Llama-3.1-8B-Instruct"
  [[conversion]]
  source = "yuhuili/EAGLE3-LLaMA3.1-Instruct-8B"
  output = "converted/eagle3\""""


@click.command(short_help="Run many conversions from one file.")
@click.argument("manifest", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@json_option
def batch(manifest: Path, as_json: bool) -> Exit:
    """Run the conversions listed in MANIFEST (TOML or JSON).

    Each entry of `conversion` has `source`, `output` and any flag of `convert` (`verifier`, `rope_theta`, …);
    `defaults` holds what they share. Relative paths start from the manifest's folder.
    """
    entries = _read(manifest)
    results = [_one(entry, manifest.parent) for entry in entries]
    if as_json:
        show_json({"conversions": results})
    else:
        rows = [(r["status"], r["source"], r["output"], r["message"]) for r in results]
        show_table(("status", "source", "output", "what"), rows)
    return max((Exit(result["exit_code"]) for result in results), default=Exit.CLEAN)


def _read(manifest: Path) -> list[dict[str, Any]]:
    """The entries with the defaults filled in, every key checked before anything runs."""
    from spec_convert.conversion import convert

    try:
        text = manifest.read_text(encoding="utf-8")
        data = json.loads(text) if manifest.suffix == ".json" else tomllib.loads(text)
    except (OSError, ValueError) as reason:
        raise UsageError(f"{manifest} cannot be read: {reason}", hint=EXAMPLE) from reason
    entries = data.get("conversion") if isinstance(data, dict) else None
    if not isinstance(entries, list) or not entries or not all(isinstance(entry, dict) for entry in entries):
        raise UsageError(f"{manifest} lists no conversion", hint=EXAMPLE)
    defaults = data.get("defaults", {})
    known = set(signature(convert).parameters)
    for entry in (defaults, *entries):
        if unknown := sorted(set(entry) - known):
            raise UsageError(
                f"{manifest}: `{unknown[0]}` is no flag of convert", hint=f"known are {', '.join(sorted(known))}"
            )
    merged = [defaults | entry for entry in entries]
    for number, entry in enumerate(merged, 1):
        for key in ("source", "output"):
            if not isinstance(entry.get(key), str):
                raise UsageError(f"{manifest}: conversion {number} has no `{key}`", hint=EXAMPLE)
    return merged


def _one(entry: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    from spec_convert.conversion import convert

    given = dict(entry)
    for key in ("source", "verifier"):
        if key in given and (folder / str(given[key])).exists():
            given[key] = str(folder / str(given[key]))
    given["output"] = str(folder / given["output"])
    result = {"source": entry["source"], "output": entry["output"], "exit_code": int(Exit.CLEAN)}
    try:
        done = convert(**given)
    except SpecConvertError as problem:
        show_error(problem)
        return result | {"status": "failed", "message": problem.message, "exit_code": int(problem.exit_code)}
    return result | {"status": "done", "message": f"{done.format}, {len(done.plan.tensors)} tensors"}
