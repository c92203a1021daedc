"""The training's entry point: it adds its verbs as any plugin does."""

from __future__ import annotations

import click

from spec_convert.hookspecs import hookimpl
from spec_convert.training.cli.collect import collect
from spec_convert.training.cli.demo import demo
from spec_convert.training.cli.generate import generate
from spec_convert.training.cli.pipeline import pipeline
from spec_convert.training.cli.prepare import prepare
from spec_convert.training.cli.regenerate import regenerate
from spec_convert.training.cli.report import report
from spec_convert.training.cli.train import train
from spec_convert.training.cli.vocab import vocab


@hookimpl
def spec_convert_commands(cli: click.Group) -> None:
    for command in (prepare, regenerate, generate, collect, vocab, train, pipeline, report, demo):
        cli.add_command(command)
