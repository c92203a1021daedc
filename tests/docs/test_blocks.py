"""Every block of code on a page is understood: commands parse, settings are read. What can run runs in `test_walks`."""

from __future__ import annotations

import json
import re
import shlex
import sys
import tomllib
from importlib.metadata import version
from itertools import dropwhile
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from spec_convert.cli import cli as group
from spec_convert.training.settings_file import read_settings
from spec_convert.validation.settings import nearest_settings

from .pages import GUIDES, README, ROOT, Page, all_pages

EVERY_PAGE = pytest.mark.parametrize("page", GUIDES, ids=[page.name for page in GUIDES])
KINDS = {"console", "sh", "toml", "yaml", "json", "python", "text"}
OF_COMMANDS = re.compile(r"spec-convert(?: --[a-z-]+)* ([a-z][a-z-]*)(.*)")
OF_THE_GROUP = {option for param in group.params for option in param.opts}  # none of them takes a value
HOOKS = {hook["id"] for hook in yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())}
INPUTS = yaml.safe_load((ROOT / "action.yml").read_text())["inputs"]


@pytest.mark.parametrize("page", all_pages(), ids=lambda page: page.name)
def test_every_block_is_of_a_kind_that_is_tested(page: Page) -> None:
    """`py` is Python that only its own package can run."""
    assert page.languages <= KINDS if page in GUIDES else KINDS | {"py"}


def test_the_readme_has_a_session_for_every_use() -> None:
    verbs = {command.split()[1] for command, _ in README.sessions()}
    assert verbs >= {"detect", "convert", "validate", "serve", "export", "train", "pipeline"}


@EVERY_PAGE
def test_every_command_line_parses(page: Page, folder: Path) -> None:
    for line in page.command_lines():
        _, *words = shlex.split(line)
        name, *args = dropwhile(OF_THE_GROUP.__contains__, words)
        for arg in args:
            if re.search(r"\.(toml|jsonl|txt)$", arg) and not arg.startswith("-"):
                Path(arg).parent.mkdir(parents=True, exist_ok=True)
                Path(arg).touch()  # click asks whether a file is there
        verb(name).make_context(name, args, parent=click.Context(group)).close()


@EVERY_PAGE
def test_every_command_in_a_sentence_exists_with_its_options(page: Page) -> None:
    for code in page.inline_code:
        if call := OF_COMMANDS.fullmatch(code):
            known = {option for param in verb(call[1]).params for option in (*param.opts, *param.secondary_opts)}
            said = re.findall(r"(?<=\s)--?[a-z][a-z-]*", call[2].partition(" -- ")[0])
            assert set(said) <= known | {"--help"}, code


def verb(name: str) -> click.Command:
    found = group.get_command(click.Context(group), name)
    assert found, f"there is no verb {name}"
    return found


@EVERY_PAGE
def test_every_piece_of_toml_is_read_by_the_program_it_is_for(page: Page, cli: Any, folder: Path) -> None:
    for text in page.blocks("toml"):
        keys = tomllib.loads(text).keys()
        if "conversion" in keys:
            check_manifest(text, cli, folder)
        elif "project" in keys:
            check_project(text)
        elif "draft" in keys:
            check_run(text)
        elif "sources" in keys:
            check_pipeline(text, cli, folder)
        else:
            check_settings(text)


def check_manifest(text: str, cli: Any, folder: Path) -> None:
    for real, local in ((r"meta-llama/[^\"]*", "verifier"), (r"yuhuili/[^\"]*", "draft")):
        text = re.sub(real, local, text)
    (folder / "drafts.toml").write_text(text)
    assert cli("batch", "drafts.toml").code == 0


def check_project(text: str) -> None:
    """A plugin's pyproject: only what brings it in."""
    project = tomllib.loads(text)["project"]
    assert list(project["entry-points"]) == ["spec_convert"]


def check_run(text: str) -> None:
    """What `train` is asked for."""
    Path("run.toml").write_text(text)
    read_settings(Path("run.toml"), {})


def check_pipeline(text: str, cli: Any, folder: Path) -> None:
    """The file of a run, but for what is not on this machine."""
    text = re.sub(r'^python = "[^"]*"', f'python = "{sys.executable}"', text, flags=re.MULTILINE)
    (folder / "run.toml").write_text(text.replace('"Qwen/Qwen3-8B"', '"verifier"'))
    for name in ("others", "questions"):
        (folder / f"{name}.jsonl").touch()
    ran = cli("pipeline", "run.toml", "--to", "evaluate", "--dry-run")
    assert ran.code == 0, ran.err


def check_settings(text: str) -> None:
    file = Path("pyproject.toml" if "tool" in tomllib.loads(text) else "spec-convert.toml")
    file.write_text(text)
    assert nearest_settings(Path.cwd()).file == Path.cwd() / file
    file.unlink()


@EVERY_PAGE
def test_every_piece_of_yaml_names_hooks_and_inputs_that_exist(page: Page) -> None:
    for text in page.blocks("yaml"):
        for part in parts(yaml.safe_load(text)):
            if "/spec-convert@" in str(part.get("uses")):
                assert part["with"].keys() <= INPUTS.keys()
                assert part["uses"].endswith(f"@v{version('spec-convert')}")
            if str(part.get("repo")).endswith("/spec-convert"):
                assert {hook["id"] for hook in part["hooks"]} <= HOOKS
                assert part["rev"] == f"v{version('spec-convert')}"


def parts(data: Any) -> list[dict[str, Any]]:
    """Every mapping in the document."""
    if isinstance(data, dict):
        return [data, *(part for value in data.values() for part in parts(value))]
    return [part for value in data for part in parts(value)] if isinstance(data, list) else []


@EVERY_PAGE
def test_every_piece_of_json_is_json(page: Page) -> None:
    for text in page.blocks("json"):
        json.loads(text)
