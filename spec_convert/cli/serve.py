"""`spec-convert serve`: start vLLM with a draft, in whatever layout the draft comes."""

from __future__ import annotations

import shlex

import click

from spec_convert.cli.output import show, show_warning
from spec_convert.errors import UsageError


class TakesVllmOptions(click.Command):
    """An option that is not ours may be one of vLLM's in the wrong place."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as unknown:
            own = ", ".join(option.opts[0] for option in self.params if isinstance(option, click.Option))
            raise UsageError(
                f"`{unknown.option_name}` is no option of `serve`, which has {own}",
                hint=f"if it is one of vLLM's, put it after `--`: spec-convert serve DRAFT -- {unknown.option_name}",
            ) from unknown


@click.command(cls=TakesVllmOptions, short_help="Serve a draft and its verifier with vLLM.")
@click.argument("draft")
@click.argument("extra", metavar="[-- VLLM OPTIONS]", nargs=-1, type=click.UNPROCESSED)
@click.option(
    "--verifier", metavar="BASE", help="The model that the draft was trained for. Default: as the draft says."
)
@click.option(
    "--speculative-tokens", metavar="K", type=click.IntRange(min=1),
    help="How many tokens are drafted at a time. Default: as the draft says.",
)  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Print the command instead of running it.")
def serve(
    draft: str, extra: tuple[str, ...], verifier: str | None, speculative_tokens: int | None, dry_run: bool
) -> None:
    """Serve DRAFT, in any layout, together with its verifier, with vLLM.

    A draft that is not unified yet is first converted into a cache folder (SPEC_CONVERT_CACHE), once; so it is with
    --dry-run, whose command names that folder. Then this process becomes `vllm serve`. What comes after `--` goes to
    vLLM as it is: spec-convert serve DRAFT -- --port 8001 --max-model-len 4096
    """
    from spec_convert.servable import servable
    from spec_convert.serving.command import become, require_plugin, vllm_command
    from spec_convert.serving.versions import loses_temperature, require_vllm, untested_warning

    if not dry_run:
        require_vllm()
    for warning in filter(None, (untested_warning(), loses_temperature())):
        show_warning(warning)
    drafted = servable(draft, verifier=verifier)
    require_plugin(drafted)
    command = vllm_command(drafted, speculative_tokens=speculative_tokens, extra=extra)
    if dry_run:
        show(shlex.join(command))
    else:
        become(command)
