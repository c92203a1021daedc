"""The README does not lie: its sessions are run, its commands are parsed, its table is the registry's."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from spec_convert.cli import cli as group
from spec_convert.registry import registry

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
CASE = ROOT / "tests" / "goldens" / "fixtures" / "eagle1_vicuna"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the README's reader sits: with a `draft`, its `verifier` and a `damaged` directory."""
    shutil.copytree(CASE / "checkpoint", tmp_path / "draft")
    shutil.copytree(CASE / "verifier", tmp_path / "verifier")
    shutil.copytree(CASE / "verifier", tmp_path / "damaged")
    (tmp_path / "damaged" / "model.safetensors").write_bytes(b"cut off")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def sessions() -> Iterator[tuple[str, str]]:
    """Each command with what the README shows of its output."""
    for block in blocks("console"):
        for part in block.removeprefix("$ ").split("\n$ "):
            command, _, shown = part.partition("\n")
            yield command, shown.strip("\n")


def pattern(shown: str) -> str:
    """A regular expression for what is shown; … stands for anything, alone on its line for any lines."""
    return re.escape(shown).replace("…", ".*")


def test_the_sessions_show_what_the_commands_say(folder: Path) -> None:
    assert len(list(sessions())) >= 5
    for command, shown in sessions():
        program, *args = shlex.split(command)
        assert program == "spec-convert"
        ran = subprocess.run(
            [sys.executable, "-m", "spec_convert", *args],
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert re.fullmatch(pattern(shown), ran.stdout.strip("\n"), re.DOTALL), f"$ {command}\n{ran.stdout}"


def test_every_other_command_line_parses() -> None:
    lines = [line for block in blocks("sh") for line in block.splitlines() if line.startswith("spec-convert ")]
    assert lines
    for line in lines:
        _, name, *args = shlex.split(line)
        args = [str(CASE / "expect.json") if arg.endswith(".toml") else arg for arg in args]
        group.commands[name].make_context(name, args).close()


def test_the_manifest_is_one(cli: Any, folder: Path) -> None:
    [text] = blocks("toml")
    assert all({"source", "output"} <= set(entry) for entry in tomllib.loads(text)["conversion"])
    for real, local in ((r"meta-llama/[^\"]*", "verifier"), (r"yuhuili/[^\"]*", "draft")):
        text = re.sub(real, local, text)
    (folder / "drafts.toml").write_text(text)
    assert cli("batch", "drafts.toml").code == 0


def test_the_python_runs(folder: Path) -> None:
    [code] = blocks("python")
    subprocess.run([sys.executable, "-c", code], cwd=folder, check=True)


def test_the_table_lists_every_format() -> None:
    rows = re.findall(r"^\| `([\w-]+)` \| (.*) \|$", README, re.MULTILINE)
    assert rows == sorted((fmt.name, fmt.title) for fmt in registry().formats.values())
