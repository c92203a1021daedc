"""The command line: `spec-convert`. Data goes to stdout, narration to stderr, and every failure has its exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

import click

from spec_convert.checkout import require_installed
from spec_convert.cli.batch import batch
from spec_convert.cli.convert import convert
from spec_convert.cli.detect import detect
from spec_convert.cli.doctor import doctor
from spec_convert.cli.evaluate import evaluate
from spec_convert.cli.explain import explain
from spec_convert.cli.export import export
from spec_convert.cli.formats import formats
from spec_convert.cli.inspect import inspect
from spec_convert.cli.output import as_problem, show_error, show_warning
from spec_convert.cli.plugins import plugins
from spec_convert.cli.schema import schema
from spec_convert.cli.serve import serve
from spec_convert.cli.stitch import stitch
from spec_convert.cli.validate import validate
from spec_convert.errors import Exit, SpecConvertError, UsageError

PLUGIN_NAMES = "`spec-convert plugins` lists them by name"


class PluginGroup(click.Group):
    """A group whose verbs may also come from plugins. Plugins are asked only when a built-in verb does not answer."""

    _asked = False

    def add_command(self, cmd: click.Command, name: str | None = None) -> None:
        """Refuses a taken verb: a plugin must not change what another one's or ours does."""
        if (wanted := name or cmd.name) in self.commands:
            raise ValueError(f"the command name `{wanted}` is taken")
        super().add_command(cmd, name)

    def list_commands(self, ctx: click.Context) -> list[str]:
        self.ask_plugins()
        return super().list_commands(ctx)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        command = super().get_command(ctx, cmd_name)
        if command is None:
            self.ask_plugins()
            command = super().get_command(ctx, cmd_name)
        return command

    def ask_plugins(self) -> None:
        """Let them add their verbs, once: whose verbs cannot be added is known only when that was tried."""
        if not self._asked:
            self._asked = True
            from spec_convert.registry import registry

            registry().add_commands(self)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does it; a verb that is not there may be that of a plugin that could not be used."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as unknown:
            from spec_convert.registry import registry

            if not (broken := registry().unusable):
                raise
            names = ", ".join(plugin.name for plugin in broken)
            more = f"Not every plugin could be used ({names}): `spec-convert plugins` says why."
            raise click.UsageError(f"{unknown.message} {more}", ctx) from unknown

    def invoke(self, ctx: click.Context) -> Any:
        """Run the verb. When that of a third party breaks, its author is named, and not we."""
        try:
            return super().invoke(ctx)
        except (SpecConvertError, click.ClickException, click.Abort, click.exceptions.Exit):
            raise
        except Exception as bug:
            if not self._asked:
                raise
            from spec_convert.registry import registry
            from spec_convert.third_party import PluginFailed

            verb = ctx.invoked_subcommand or ""
            if (provider := registry().commands.get(verb)) is None:
                raise
            raise PluginFailed(f"the command `{verb}`", provider, f"{type(bug).__name__}: {bug}") from bug


def _require_plugins(context: click.Context, parameter: click.Parameter, wanted: bool) -> None:
    """Stop before any verb, an unknown one included, when a plugin cannot be used or a name to disable is nobody's."""
    if not wanted or context.resilient_parsing:
        return
    from spec_convert.registry import DISABLE, registry

    assert isinstance(context.command, PluginGroup)
    context.command.ask_plugins()
    known = registry()
    problems = [f"the plugin `{plugin.name}` (from {plugin.origin}): {plugin.error}" for plugin in known.unusable]
    if problems:
        names = ",".join(plugin.name for plugin in known.unusable)
        hint = f"repair or uninstall it, or leave it out: {DISABLE}={names}"
        raise UsageError(f"cannot use {'; '.join(problems)}", hint=hint)
    if known.nobody:
        raise UsageError(_nobody(known.nobody), hint=PLUGIN_NAMES)


def _nobody(names: Sequence[str]) -> str:
    from spec_convert.registry import DISABLE

    return f"{DISABLE} names {', '.join(f'`{name}`' for name in names)}, and no plugin is called so"


@click.group(cls=PluginGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("-q", "--quiet", is_flag=True, help="No narration, only results and errors.")
@click.option(
    "--strict-plugins", is_flag=True, is_eager=True, expose_value=False, callback=_require_plugins,
    help="Stop if an installed plugin cannot be used. For CI.",
)  # fmt: skip
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
    SPEC_CONVERT_DISABLE=name,name leaves plugins out; SPEC_CONVERT_TRACE=1 shows what each one is asked and answers.
    """
    from spec_convert.narration import listen

    listen(wanted=not quiet)
    context.call_on_close(partial(listen, wanted=False))  # for programs that go on after `run`
    if quiet:  # the Hub's client narrates too
        os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    _warn_of_typos()


def _warn_of_typos() -> None:
    """Whoever disables a plugin by a wrong name goes on with it, and must be told."""
    from spec_convert.registry import DISABLE, registry

    if os.environ.get(DISABLE) and (names := registry().nobody):
        show_warning(_nobody(names), PLUGIN_NAMES)


for command in (
    detect, inspect, convert, batch, validate, evaluate, doctor, export, stitch, serve, formats, plugins, explain,
    schema,
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
