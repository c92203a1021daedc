"""The command line that starts vLLM with a draft, and what must be right before it is typed or run."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from spec_convert.errors import UsageError
from spec_convert.servable import Servable
from spec_convert.serving.process import command_of
from spec_convert.serving.speculative import llm_arguments
from spec_convert.serving.updaters import drops_biases, mistakes_windows
from spec_convert.serving.versions import INSTALL, lacks_command

PROGRAM = "vllm"
MODULE = "vllm.entrypoints.openai.api_server"  # the same server, with the same options
PLUGIN = "spec-convert"  # our entry point in the group `vllm.general_plugins`
ALLOWED_PLUGINS = "VLLM_PLUGINS"
SPECULATIVE = ("--speculative-config", "-sc")
PAIR = ("--model", "--revision", "--spec-model", "--spec-method")  # of vLLM: what is served, and what drafts for it


def vllm_command(drafted: Servable, *, speculative_tokens: int | None = None, extra: Sequence[str] = ()) -> list[str]:
    """`vllm serve` with all that the draft needs, as `command_line` makes it.

    Raises UsageError when the command would not serve this draft with this verifier.
    """
    _refuse_another_pair(extra)
    arguments = llm_arguments(drafted, speculative_tokens=speculative_tokens)
    if "speculative_config" in arguments:
        _refuse_second(extra)
    return command_line(arguments, extra)


def command_line(arguments: Mapping[str, Any], extra: Sequence[str]) -> list[str]:
    """`vllm serve` with these arguments of vLLM's `LLM`, as words; ``extra`` comes last, unchanged.

    Where that command cannot run it is the server's module, run by this Python. Raises UsageError when ``extra`` does
    not begin with an option.
    """
    _refuse_stray(extra)
    start = [*command_of(MODULE), "--model"] if lacks_command() else [PROGRAM, "serve"]
    command = [*start, str(arguments["model"])]
    for name, value in arguments.items():
        if name != "model":
            command += option(name, value)
    return [*command, *extra]


def option(name: str, value: object) -> list[str]:
    """An argument of vLLM's `LLM`, as its command line spells it."""
    flag = name.replace("_", "-")
    if isinstance(value, bool):
        return [f"--{flag}" if value else f"--no-{flag}"]
    return [f"--{flag}", value if isinstance(value, str) else json.dumps(value)]


def require_plugin(drafted: Servable) -> None:
    """Raises UsageError when vLLM is told not to load what teaches it this draft."""
    from spec_convert.unified import BlockConfig, FusedConfig

    config, allowed = drafted.config, os.environ.get(ALLOWED_PLUGINS)
    if allowed is None or PLUGIN in allowed.split(","):
        return
    which = f"of type `{config.speculators_model_type}`"
    if isinstance(config, FusedConfig):  # vLLM reads all others of these types by itself
        if not drops_biases(config.transformer_layer_config.model_dump()):
            return
        which += " with biases in Qwen3 layers"
    if isinstance(config, BlockConfig):
        if not mistakes_windows(config.model_dump()):
            return
        which += " with these sliding windows"
    wanted = ",".join([*filter(None, allowed.split(",")), PLUGIN])
    raise UsageError(
        f"{ALLOWED_PLUGINS} keeps vLLM from loading the plugin `{PLUGIN}`, which drafts {which} need",
        hint=f"unset it, or set {ALLOWED_PLUGINS}={wanted}",
    )


def become(command: Sequence[str]) -> NoReturn:
    """Replace this process by the command, so that signals and the exit code are vLLM's own. Raises UsageError."""
    program = _program() if command[0] == PROGRAM else command[0]
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(program, [program, *command[1:]])


def _program() -> str:
    """The `vllm` of this Python, whatever else is on PATH: the plugin is installed beside that one."""
    beside = Path(sys.executable).with_name(PROGRAM)
    found = str(beside) if os.access(beside, os.X_OK) else shutil.which(PROGRAM)
    if found is None:
        raise UsageError(f"vLLM is installed, but its command `{PROGRAM}` is not on PATH", hint=f"again: {INSTALL}")
    return found


def _refuse_stray(extra: Sequence[str]) -> None:
    if extra and not extra[0].startswith("-"):
        raise UsageError(
            f"`{extra[0]}` is neither the draft nor an option of vLLM",
            hint="options for vLLM come after `--`: spec-convert serve DRAFT -- --port 8001",
        )


def _refuse_second(extra: Sequence[str]) -> None:
    """vLLM takes the last one, and would serve the verifier without this draft."""
    hint = "take the command that --dry-run prints, and add to its --speculative-config"
    refuse_options(extra, SPECULATIVE, "would replace the one that names this draft", hint)


def _refuse_another_pair(extra: Sequence[str]) -> None:
    hint = "name the verifier by --verifier BASE before `--`, or change the command that --dry-run prints"
    refuse_options(extra, PAIR, "would replace the draft or its verifier", hint)


def refuse_options(extra: Sequence[str], options: Sequence[str], why: str, hint: str) -> None:
    """Raises UsageError, which says ``why``, when vLLM may read a word of ``extra`` as one of ``options``."""
    for word in extra:
        if _names(word, options):
            raise UsageError(f"{word.partition('=')[0]} {why}", hint=hint)


def _names(word: str, options: Sequence[str]) -> bool:
    """Whether vLLM may read ``word`` as one of these options: with underscores, `.key`, `=value`, or cut short."""
    name = word.partition("=")[0].partition(".")[0].replace("_", "-")
    return name in options or (len(name) > 2 and name.startswith("--") and any(o.startswith(name) for o in options))
