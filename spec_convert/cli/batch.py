"""`spec-convert batch`: many conversions from one file; one failure does not stop the rest."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from spec_convert.cli.convert import convert as command
from spec_convert.cli.output import as_problem, json_option, show_error, show_json, show_table
from spec_convert.errors import Exit, UsageError

KNOWN = {str(option.name).rstrip("_"): option for option in command.params if option.name != "as_json"}
EXAMPLE = "`spec-convert batch --help` shows an example"


@click.command(short_help="Run many conversions from one file.")
@click.argument("manifest", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@json_option
def batch(manifest: Path, as_json: bool) -> Exit:
    """Run the conversions listed in MANIFEST (TOML or JSON).

    Each entry of `conversion` has `source`, `output` and any flag of `convert` (`verifier`, `rope_theta`, …);
    `defaults` holds what they share. Relative paths start from the manifest's folder.

    \b
      [defaults]
      verifier = "meta-llama/Llama-3.1-8B-Instruct"
      [[conversion]]
      source = "yuhuili/EAGLE3-LLaMA3.1-Instruct-8B"
      output = "converted/eagle3"
    """
    from spec_convert.narration import say

    entries = _read(manifest)
    results = []
    for number, entry in enumerate(entries, 1):
        say(f"Conversion {number} of {len(entries)}")
        results.append(_one(entry, manifest.parent))
    if as_json:
        show_json({"conversions": results})
    else:
        rows = [(r["status"], r["source"], r["output"], r["message"]) for r in results]
        show_table(("status", "source", "output", "what"), rows)
    return max((Exit(result["exit_code"]) for result in results), default=Exit.CLEAN)


def _read(manifest: Path) -> list[dict[str, Any]]:
    """The entries with the defaults filled in, every key and value checked before anything runs."""
    try:
        text = manifest.read_text(encoding="utf-8")
        data = json.loads(text) if manifest.suffix == ".json" else tomllib.loads(text)
    except (OSError, ValueError) as reason:
        raise UsageError(f"{manifest} cannot be read: {reason}", hint=EXAMPLE) from reason
    entries = data.get("conversion") if isinstance(data, dict) else None
    defaults = data.get("defaults", {}) if isinstance(data, dict) else None
    if not isinstance(entries, list) or not entries or not all(isinstance(part, dict) for part in (defaults, *entries)):
        raise UsageError(f"{manifest} lists no conversion", hint=EXAMPLE)
    return [
        _checked(defaults | entry, where=f"{manifest}: conversion {number}") for number, entry in enumerate(entries, 1)
    ]


def _checked(entry: Mapping[str, Any], *, where: str) -> dict[str, Any]:
    """The entry with its values as `convert` would take them from its flags."""
    if unknown := sorted(set(entry) - set(KNOWN)):
        raise UsageError(f"{where}: `{unknown[0]}` is no flag of convert", hint=f"known are {', '.join(sorted(KNOWN))}")
    for key in ("source", "output"):
        if not isinstance(entry.get(key), str):
            raise UsageError(f"{where} has no `{key}`", hint=EXAMPLE)
    context = click.Context(command)
    try:
        return {key: _value(KNOWN[key], context, value) for key, value in entry.items() if value is not None}
    except click.BadParameter as problem:
        raise UsageError(f"{where}: {problem.format_message()}", hint="`spec-convert convert --help`") from problem


def _value(option: click.Parameter, context: click.Context, given: Any) -> Any:
    """As the command line would take it, which knows only text; lists are for the layer ids."""
    return option.type_cast_value(context, given if isinstance(given, list) else str(given))


def _one(entry: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    from spec_convert.conversion import convert

    given = dict(entry)
    for key in ("source", "verifier"):
        if key in given and (folder / given[key]).exists():
            given[key] = str(folder / given[key])
    given["output"] = folder / given["output"]
    result = {"source": entry["source"], "output": str(entry["output"]), "exit_code": int(Exit.CLEAN)}
    try:
        done = convert(**given)
    except Exception as failure:  # whatever it is, the rest still runs
        problem = as_problem(failure)
        show_error(problem)
        return result | {"status": "failed", "message": problem.message, "exit_code": int(problem.exit_code)}
    return result | {"status": "done", "message": f"{done.format}, {len(done.plan.tensors)} tensors"}
