"""Every help text: there, short, and true to the terminal's width."""

from __future__ import annotations

from typing import Any

import click
import pytest

from spec_convert.cli import cli as group

COMMANDS = group.list_commands(click.Context(group))  # with the verbs of plugins


def test_the_commands_are_those_of_the_contract() -> None:
    contract = {"detect", "inspect", "convert", "batch", "validate", "formats", "plugins", "explain", "schema", "demo"}
    contract |= {"evaluate", "export", "serve", "prepare", "regenerate", "generate", "collect", "vocab", "train"}
    assert contract <= set(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_fits_a_screen_and_ends_well(cli: Any, name: str) -> None:
    ran = cli(name, "--help")
    assert (ran.code, ran.err) == (0, "")
    assert max(map(len, ran.out.splitlines())) <= 80
    assert len(ran.out.splitlines()) <= 50


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_says_what_it_does_or_lists_its_choices(name: str) -> None:
    for option in group.commands[name].params:
        if isinstance(option, click.Option):
            assert option.help or isinstance(option.type, click.Choice), f"{name} {option.name}"


def test_the_list_of_commands_has_one_line_each(cli: Any) -> None:
    listed = cli("--help").out.partition("Commands:\n")[2].splitlines()
    assert [line.split()[0] for line in listed] == COMMANDS
    assert all(line.endswith(".") for line in listed)


def test_no_arguments_show_the_help(cli: Any) -> None:
    ran = cli()
    assert ran.code == 2
    assert ran.err.startswith("Usage: spec-convert [OPTIONS] COMMAND")


@pytest.mark.parametrize("name", ["detect", "convert", "validate", "batch"])
def test_a_missing_argument_is_named(cli: Any, name: str) -> None:
    ran = cli(name)
    assert ran.code == 2
    assert "Missing argument" in ran.err


def test_version(cli: Any) -> None:
    assert cli("--version").out.startswith("spec-convert, version ")
