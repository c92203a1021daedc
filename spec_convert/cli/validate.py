"""`spec-convert validate`: is a checkpoint right, for people and for CI."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from spec_convert.cli.output import show
from spec_convert.errors import Exit, UsageError
from spec_convert.findings import Depth
from spec_convert.reports import RENDERERS

if TYPE_CHECKING:
    from spec_convert.findings import Report
    from spec_convert.validation.settings import Settings

POSITIVE = click.IntRange(min=1)


class Output(click.ParamType[tuple[str, Path]]):
    """`sarif=drafts.sarif`: the name of a renderer, and the file for what it makes."""

    name = "format=file"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, Path]:
        name, equals, file = str(value).partition("=")
        if name not in RENDERERS or not equals or not file:
            self.fail(f"{value!r} is not of the form FORMAT=FILE, a format being {', '.join(RENDERERS)}", param, ctx)
        return name, Path(file)


@click.command(short_help="Look for everything wrong with checkpoints.")
@click.argument("sources", nargs=-1, required=True)
@click.option("--verifier", metavar="BASE", help="Also check that draft and verifier fit: a folder or Hub id.")
@click.option(
    "--level", type=click.Choice([depth.value for depth in Depth]), help="How deep to look. Default: headers."
)
@click.option("--prompts", metavar="FILE", help="For acceptance: what is to be answered, as for `evaluate`.")
@click.option("--min-acceptance-length", metavar="X", type=float, help="For acceptance: fails below it.")
@click.option("--engine", type=click.Choice(["transformers", "vllm"]), help="Default: transformers.")
@click.option("--max-tokens", metavar="N", type=POSITIVE, help="Of each answer. Default: 256.")
@click.option("--limit", metavar="N", type=POSITIVE, help="Take only the first N prompts.")
@click.option("--speculative-tokens", metavar="K", type=POSITIVE, help="Drafted at a time. Default: as the draft says.")
@click.option("--compare/--no-compare", default=None, help="Is the text the verifier's own? Default: compare.")
@click.option("--select", metavar="RULE", multiple=True, help="Report only these rules: codes or globs, by comma.")
@click.option("--ignore", metavar="RULE", multiple=True, help="Leave these rules out.")
@click.option("--strict/--no-strict", default=None, help="Warnings are errors.")
@click.option("--exit-zero", is_flag=True, help="Whatever is found, the exit code is 0.")
@click.option("--isolated", is_flag=True, help="Look for no settings file.")
@click.option("--files", is_flag=True, help="SOURCES are files: look at their folders, each once.")
@click.option("--format", "renderer", type=click.Choice(list(RENDERERS)), default="text", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Short for --format json.")
@click.option("--output", "outputs", multiple=True, type=Output(), help="Also into a file: sarif=FILE. Repeatable.")
def validate(
    sources: tuple[str, ...], renderer: str, as_json: bool, outputs: Sequence[tuple[str, Path]], exit_zero: bool,
    **flags: Any,
) -> Exit:  # fmt: skip
    """Look for everything wrong with the checkpoints SOURCES.

    Takes unified directories and every native format, which is judged by what `convert` would find. Level `headers`
    works on a Hub id without downloading weights; `tensors` looks at every number; `forward` runs the draft;
    `acceptance` measures it as `evaluate` does.

    Settings come from the nearest spec-convert.toml, or pyproject.toml with [tool.spec-convert], upwards from here.
    """
    from spec_convert.validation.validation import validate as check

    settings = _settings(isolated=flags.pop("isolated"))
    flags["selection"] = settings.selection(
        select=_rules("--select", flags), ignore=_rules("--ignore", flags), strict=flags.pop("strict")
    )
    flags["level"] = flags["level"] or settings.level or Depth.HEADERS
    flags["verifier"] = flags["verifier"] or settings.verifier
    report = check(_folders(sources) if flags.pop("files") else sources, **flags)
    renderer = "json" if as_json else renderer
    show(RENDERERS[renderer](report))
    for form, file in outputs:
        _write(file, RENDERERS[form](report))
    if renderer == "github":
        from spec_convert.reports.github import STEP_SUMMARY, write_step_summary

        if summary := os.environ.get(STEP_SUMMARY):
            write_step_summary(report, Path(summary))
    return _exit_code(report, exit_zero=exit_zero)


def _write(file: Path, text: str) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text + "\n", encoding="utf-8")
    except OSError as reason:
        raise UsageError(f"cannot write {file}: {reason.strerror}", hint="give another --output") from reason


def _settings(*, isolated: bool) -> Settings:
    from spec_convert.narration import say
    from spec_convert.validation.settings import Settings, nearest_settings

    if isolated:
        return Settings()
    settings = nearest_settings(Path.cwd())
    if settings.file is not None:
        say(f"Settings from {settings.file}")
    return settings


def _rules(flag: str, flags: dict[str, Any]) -> frozenset[str] | None:
    """The rules that a flag names, by comma or one at a time; None when it was not given."""
    from spec_convert.validation.selection import matching

    given: Sequence[str] = flags.pop(flag.removeprefix("--"))
    try:
        return matching(name.strip() for names in given for name in names.split(",")) if given else None
    except UsageError as problem:
        raise UsageError(f"{flag}: {problem.message}", hint=problem.hint) from problem


def _folders(files: Sequence[str]) -> list[str]:
    """The folders of the files, in the order in which they are first named."""
    for file in files:
        if not os.path.isfile(file):  # its folder, if that is not there either, might be taken for a Hub id
            raise UsageError(f"--files: {file} is no file", hint="leave --files out to name folders and Hub ids")
    return list(dict.fromkeys(str(Path(file).parent) for file in files))


def _exit_code(report: Report, *, exit_zero: bool) -> Exit:
    """A source that is not there, or a Hub that does not answer, says nothing about a checkpoint: no verdict."""
    from spec_convert.rules.sources import OUT_OF_REACH

    if any(finding.rule in OUT_OF_REACH for checked in report.checked for finding in checked.findings):
        return Exit.UNUSABLE
    return Exit.FINDINGS if report.has_errors and not exit_zero else Exit.CLEAN
