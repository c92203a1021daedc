"""The command line: `spec-convert`. Data goes to stdout, narration to stderr, and every failure has its exit code."""

from __future__ import annotations

import os
import sys
from functools import partial
from typing import Any

import click

from spec_convert.checkout import require_installed
from spec_convert.cli.batch import batch
from spec_convert.cli.convert import convert
from spec_convert.cli.demo import demo
from spec_convert.cli.detect import detect
from spec_convert.cli.evaluate import evaluate
from spec_convert.cli.explain import explain
from spec_convert.cli.export import export
from spec_convert.cli.formats import formats
from spec_convert.cli.inspect import inspect
from spec_convert.cli.output import as_problem, show_error
from spec_convert.cli.plugins import plugins
from spec_convert.cli.schema import schema
from spec_convert.cli.serve import serve
from spec_convert.cli.validate import validate
from spec_convert.errors import Exit


class PluginGroup(click.Group):
    """A group whose verbs may also come from plugins. Plugins are asked only when a built-in verb does not answer."""

    _asked = False

    def add_command(self, cmd: click.Command, name: str | None = None) -> None:
        """Refuses a taken verb: a plugin must not change what another one's or ours does."""
        if (wanted := name or cmd.name) in self.commands:
            raise ValueError(f"the command name `{wanted}` is taken")
        super().add_command(cmd, name)

    def list_commands(self, ctx: click.Context) -> list[str]:
        self._ask_plugins()
        return super().list_commands(ctx)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        command = super().get_command(ctx, cmd_name)
        if command is None:
            self._ask_plugins()
            command = super().get_command(ctx, cmd_name)
        return command

    def _ask_plugins(self) -> None:
        if not self._asked:
            self._asked = True
            from spec_convert.registry import registry

            registry().add_commands(self)


@click.group(cls=PluginGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("-q", "--quiet", is_flag=True, help="No narration, only results and errors.")
@click.version_option(package_name="spec-convert", prog_name="spec-convert")
@click.pass_context
def cli(context: click.Context, quiet: bool) -> None:
    """Turn any published speculative-decoding draft into one unified directory that vLLM serves.

    SOURCE is a folder, a weight file, or a Hub id: org/name, org/name@revision, hf://org/name.

    \b
    Exit codes: 0    done, or clean
                1    the checkpoint is refused, or has error findings
                2    the request cannot be carried out
                130  interrupted
    SPEC_CONVERT_DEBUG=1 shows the traceback of an internal error.
    """
    from spec_convert.narration import listen

    listen(wanted=not quiet)
    context.call_on_close(partial(listen, wanted=False))  # for programs that go on after `run`
    if quiet:  # the Hub's client narrates too
        os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"


for command in (
    detect, inspect, convert, batch, validate, evaluate, export, serve, formats, plugins, explain, schema, demo,
):  # fmt: skip
    cli.add_command(command)


def main(args: list[str] | None = None) -> None:
    """Run the command line and leave with its exit code."""
    sys.exit(run(args))


def run(args: list[str] | None = None) -> int:
    """Run the command line; returns the exit code. No failure of the user's input ever shows a traceback."""
    try:
        require_installed()
        result: Any = cli.main(args=args, prog_name="spec-convert", standalone_mode=False)
    except (Exception, KeyboardInterrupt) as failure:
        return _explain_failure(failure)
    return int(result) if isinstance(result, int) else Exit.CLEAN


def _explain_failure(failure: Exception | KeyboardInterrupt) -> int:
    """Say on stderr what went wrong; returns the exit code."""
    if isinstance(failure, click.Abort | KeyboardInterrupt):
        click.echo("interrupted", err=True)
        return Exit.INTERRUPTED
    if isinstance(failure, click.ClickException):
        failure.show()
        return Exit.UNUSABLE
    problem = as_problem(failure)
    show_error(problem)
    return problem.exit_code
