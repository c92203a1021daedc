"""`spec-convert serve`: start vLLM with a draft, in whatever layout the draft comes, or to capture hidden states."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from spec_convert.cli.convert import LayerIds
from spec_convert.cli.output import show, show_warning
from spec_convert.errors import UsageError
from spec_convert.narration import say

# Options that mean something only without, and only with --capture.
DRAFTING = {"verifier": "--verifier", "speculative_tokens": "--speculative-tokens"}
CAPTURING = {"layer_ids": "--layers", "storage": "--storage", "dtype": "--dtype"}


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
@click.option("--capture", is_flag=True, help="Take a verifier for DRAFT, and write its hidden states.")
@click.option(
    "--layers", "layer_ids", metavar="IDS", type=LayerIds(),
    help="With --capture: boundary ids. Default: 2, N/2, N-3 and N, of N layers.",
)  # fmt: skip
@click.option(
    "--storage", metavar="DIR", type=click.Path(path_type=Path, file_okay=False),
    help="With --capture: where the states go until they are collected. Default: a temporary folder.",
)  # fmt: skip
@click.option(
    "--dtype", type=click.Choice(["bfloat16", "float16", "float32"]),
    help="With --capture: of the states. Default: bfloat16.",
)  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Print the command instead of running it.")
def serve(draft: str, extra: tuple[str, ...], capture: bool, dry_run: bool, **flags: Any) -> None:
    """Serve DRAFT, in any layout, together with its verifier, with vLLM.

    A draft that is not unified yet is first converted into a cache folder (SPEC_CONVERT_CACHE), once; so it is with
    --dry-run, whose command names that folder. Then this process becomes `vllm serve`. What comes after `--` goes to
    vLLM as it is: spec-convert serve DRAFT -- --port 8001 --max-model-len 4096

    With --capture DRAFT is a verifier instead. It is served alone, and the hidden states of every request are written
    to files, which `spec-convert collect` turns into training data.
    """
    from spec_convert.serving.capture import default_storage, make_storage
    from spec_convert.serving.command import become
    from spec_convert.serving.versions import require_vllm, untested_warning

    _refuse_the_others(capture, flags)
    if not dry_run:
        require_vllm()
    if warning := untested_warning():
        show_warning(warning)
    storage = (flags["storage"] or default_storage()).absolute()
    if capture:
        command = _capturing(draft, extra, storage, layer_ids=flags["layer_ids"], dtype=flags["dtype"])
    else:
        command = _drafting(draft, extra, **{name: flags[name] for name in DRAFTING})
    if dry_run:
        show(shlex.join(command))
        return
    if capture:
        make_storage(storage)
    become(command)


def _refuse_the_others(capture: bool, flags: Mapping[str, object]) -> None:
    """Raises UsageError for an option that would mean nothing."""
    for name, option in (DRAFTING if capture else CAPTURING).items():
        if flags[name] is not None:
            what = "belongs to a draft, and --capture serves a verifier alone" if capture else "belongs to --capture"
            hint = f"leave out {option}" if capture else f"to capture hidden states: serve --capture MODEL {option} …"
            raise UsageError(f"{option} {what}", hint=hint)


def _drafting(draft: str, extra: Sequence[str], *, verifier: str | None, speculative_tokens: int | None) -> list[str]:
    from spec_convert.servable import servable
    from spec_convert.serving.command import require_plugin, vllm_command
    from spec_convert.serving.versions import loses_temperature

    if warning := loses_temperature():
        show_warning(warning)
    drafted = servable(draft, verifier=verifier)
    require_plugin(drafted)
    return vllm_command(drafted, speculative_tokens=speculative_tokens, extra=extra)


def _capturing(
    model: str, extra: Sequence[str], storage: Path, *, layer_ids: tuple[int, ...] | None, dtype: str | None
) -> list[str]:
    from spec_convert.serving.capture import capture_command, default_layers, require_layers
    from spec_convert.verifier import open_verifier

    verifier = open_verifier(model)
    layers = verifier.num_hidden_layers
    layer_ids = require_layers(layer_ids, layers) if layer_ids else default_layers(layers)
    say(f"hidden states of layers {','.join(map(str, layer_ids))} of {layers} go to {storage}")
    return capture_command(verifier, layer_ids, storage, dtype=dtype or "bfloat16", extra=extra)
