"""The keys of a table as the options of a verb, which its own command reads before anything runs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

import click

from spec_convert.cli import cli
from spec_convert.errors import UsageError, unknown_name
from spec_convert.training.pipeline.stages import Stage


def command_of(verb: str) -> click.Command:
    context = click.Context(cli)
    if (command := cli.get_command(context, verb)) is None:
        raise unknown_name("verb", verb, cli.list_commands(context), "spec-convert --help")
    return command


def options_of(command: click.Command) -> dict[str, click.Option]:
    """By the keys that a file may have for them: `--draft-vocab-size` is `draft_vocab_size`."""
    options = [param for param in command.params if isinstance(param, click.Option)]
    return {_key(name): option for option in options for name in option.opts if name.startswith("--")}


def words_of(stage: Stage, options: Mapping[str, Any]) -> list[str]:
    """Options of a table as words of the command line. Raises UsageError for those that are not the user's to say."""
    command = command_of(stage.verb)
    known = options_of(command)
    taken = {
        known[_key(word)]: stage.words[number][place + 1]
        for number, group in enumerate(stage.words)
        for place, word in enumerate(group)
        if word.startswith("--") and not known[_key(word)].is_flag
    }
    words: list[str] = []
    for key, value in options.items():
        if why := stage.refused.get(key):
            raise UsageError(f"[{stage.table}]: `{key}` is not said here: {why}", hint="leave it out")
        if key not in known:
            raise _unknown(stage, key, known)
        if (option := known[key]) in taken:
            raise UsageError(
                f"[{stage.table}]: `{key}` is decided by the pipeline", hint=f"leave it out: it is {taken[option]}"
            )
        words += option_words(option, value, where=f"[{stage.table}]: `{key}`")
    return words


def option_words(option: click.Option, value: Any, *, where: str) -> list[str]:
    name = max(option.opts, key=len)
    if option.is_flag:
        if not isinstance(value, bool):
            raise UsageError(f"{where} is {value!r}", hint="true or false")
        names = option.opts if value else option.secondary_opts
        return [max(names, key=len)] if names else []
    if isinstance(value, dict) and option.multiple:  # key=value, as `--llm-arg` takes them
        value = [f"{key}={json.dumps(inner)}" for key, inner in value.items()]
    if isinstance(value, list | tuple) and not option.multiple:  # as layer ids are written
        value = ",".join(map(str, value))
    each = value if isinstance(value, list | tuple) else [value]
    return [word for one in each for word in (name, one if isinstance(one, str) else json.dumps(one, default=str))]


def parsed(stage: Stage, words: Sequence[str]) -> Mapping[str, Any]:
    """What the verb makes of its words. Raises UsageError, which says why it takes them not."""
    command = command_of(stage.verb)
    try:
        with command.make_context(stage.verb, list(words), parent=click.Context(cli)) as context:
            return context.params
    except click.ClickException as problem:
        raise UsageError(
            f"[{stage.table}]: {problem.format_message()}", hint=f"spec-convert {stage.verb} --help"
        ) from problem


def _unknown(stage: Stage, key: str, known: Mapping[str, click.Option]) -> UsageError:
    near = get_close_matches(key.replace("-", "_"), known, n=1, cutoff=0.5)
    meant = f"did you mean `{near[0]}`? " if near else ""
    return UsageError(
        f"[{stage.table}]: there is no key `{key}`",
        hint=f"{meant}keys are the options of `spec-convert {stage.verb}`, with _ for -",
    )


def _key(option: str) -> str:
    return option.removeprefix("--").replace("-", "_")
