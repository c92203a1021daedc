"""`spec-convert serve`: the command that it prints, the process that it becomes, and one clear line when it cannot."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from spec_convert.serving import command, versions


@pytest.fixture
def vllm(monkeypatch: pytest.MonkeyPatch) -> Any:
    """`vllm("0.33.0")` pretends that this one is installed; None: none is. At first a tested one."""
    monkeypatch.delenv("VLLM_PLUGINS", raising=False)

    def pretend(found: str | None) -> None:
        monkeypatch.setattr(versions, "installed", lambda: found)
        for place in (command, versions):
            monkeypatch.setattr(place, "lacks_command", lambda: False)

    pretend("0.32.0")
    return pretend


@pytest.fixture
def executed(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands that would have replaced this process."""
    calls: list[list[str]] = []
    monkeypatch.setattr(command, "become", calls.append)
    return calls


def said(ran: Any) -> list[str]:
    """What is on stderr beside the narration."""
    return [line for line in ran.err.splitlines() if not line.startswith("INFO")]


def test_a_dry_run_prints_one_line_that_a_shell_understands(
    cli: Any, vllm: Any, eagle3: Any, make_verifier: Any, tmp_path: Path
) -> None:
    output = eagle3().convert().output.rename(tmp_path / "a draft's folder")
    options = ["--port", "8001", "--hf-overrides", '{"a": "it\'s"}']
    ran = cli("serve", output, "--verifier", make_verifier("other"), "--dry-run", "--", *options)
    assert (ran.code, ran.out.count("\n"), said(ran)) == (0, 1, [])
    subprocess.run(["bash", "-n", "-c", ran.out], check=True)
    shell = subprocess.run(
        ["bash", "-c", f'vllm() {{ printf "%s\\0" "$@"; }}; {ran.out}'], check=True, capture_output=True, text=True
    )
    words = shell.stdout.split("\0")[:-1]
    assert shlex.split(ran.out) == ["vllm", *words]
    assert words[:3] == ["serve", str(tmp_path / "other"), "--speculative-config"]
    assert json.loads(words[3])["model"] == str(output)
    assert words[4:] == options


def test_a_dry_run_of_a_native_draft_names_a_folder_that_is_there(cli: Any, vllm: Any, eagle: Any, cache: Path) -> None:
    draft = eagle()
    ran = cli("serve", draft.write(), "--verifier", draft.verifier, "--speculative-tokens", "5", "--dry-run")
    program, verb, folder, flag, value = shlex.split(ran.out)
    assert (program, verb, flag, json.loads(value)) == (
        "vllm", "serve", "--speculative-config", {"num_speculative_tokens": 5},
    )  # fmt: skip
    assert Path(folder).parent == cache
    assert (Path(folder) / "model.safetensors").is_file()


def test_a_dry_run_needs_no_vllm(cli: Any, vllm: Any, eagle: Any) -> None:
    vllm(None)
    output = eagle().convert().output
    assert cli("serve", output, "--dry-run").out == f"vllm serve {output}\n"


def test_the_command_is_run_in_place_of_this_process(cli: Any, vllm: Any, eagle: Any, executed: Any) -> None:
    output = eagle().convert().output
    ran = cli("serve", output, "--", "--port", "8001")
    assert executed == [["vllm", "serve", str(output), "--port", "8001"]]
    assert ran.out == ""
    assert said(ran) == []


BECOME = """
import sys
from spec_convert.serving import command, versions
from spec_convert.cli import main

versions.installed = lambda: "0.32.0"
command.lacks_command = lambda: False
command._program = lambda: sys.argv[1]
main(sys.argv[2:])
"""
SERVER = """#!/bin/sh
echo "$$ $@"
exit 7
"""


def test_the_process_and_its_exit_code_are_those_of_vllm(eagle: Any, tmp_path: Path) -> None:
    output = eagle().convert().output
    (tmp_path / "vllm").write_text(SERVER)
    (tmp_path / "vllm").chmod(0o755)
    args = [tmp_path / "vllm", "serve", output, "--", "--port", "1"]
    with subprocess.Popen(
        [sys.executable, "-c", BECOME, *args], cwd=tmp_path, env=os.environ, stdout=subprocess.PIPE, text=True
    ) as process:
        printed, _ = process.communicate()
    assert printed == f"{process.pid} serve {output} --port 1\n"
    assert process.returncode == 7


def test_no_vllm_is_one_line_and_the_command_that_installs_it(
    cli: Any, vllm: Any, eagle: Any, executed: Any, cache: Path
) -> None:
    vllm(None)
    draft = eagle()
    ran = cli("serve", draft.write(), "--verifier", draft.verifier)
    assert (ran.code, ran.out, executed) == (2, "", [])
    assert said(ran) == ["error: vLLM is not installed", f"  hint: {versions.INSTALL}"]
    assert not cache.exists()


def test_a_vllm_that_is_too_old_is_one_line_and_the_command_that_installs_another(
    cli: Any, vllm: Any, eagle: Any, executed: Any
) -> None:
    vllm("0.11.2")
    ran = cli("serve", eagle().convert().output)
    assert (ran.code, executed) == (2, [])
    assert said(ran) == [
        "error: vLLM 0.11.2 is installed, which is too old: drafts need 0.32 or a later one",
        f"  hint: {versions.INSTALL}",
    ]


def test_a_vllm_that_was_not_tested_is_warned_of_once_and_started(
    cli: Any, vllm: Any, eagle: Any, executed: Any
) -> None:
    vllm("0.33.0")
    ran = cli("-q", "serve", eagle().convert().output)
    assert len(executed) == 1
    assert said(ran) == [
        "warning: vLLM 0.33.0 is installed; spec-convert was tested with 0.32: compare its acceptance with `evaluate`"
    ]


@pytest.mark.usefixtures("vllm")
def test_a_verifier_that_is_not_there_is_one_line(cli: Any, eagle: Any, executed: Any, tmp_path: Path) -> None:
    output = eagle().convert().output
    (tmp_path / "verifier").rename(tmp_path / "moved")
    ran = cli("serve", output)
    assert (ran.code, ran.out, executed) == (2, "", [])
    problem, hint = said(ran)
    assert problem.startswith(f"error: {output} names a verifier that is not there: {tmp_path}/verifier: ")
    assert hint == "  hint: say where it is: --verifier BASE"


@pytest.mark.usefixtures("vllm")
@pytest.mark.parametrize("unified", [True, False])
def test_a_draft_that_does_not_fit_is_one_line(
    cli: Any, eagle: Any, make_verifier: Any, executed: Any, unified: bool
) -> None:
    draft, other = eagle(), make_verifier("other", hidden_size=24)
    source = draft.convert().output if unified else draft.write()
    ran = cli("serve", source, "--verifier", other)
    assert (ran.code, ran.out, executed) == (2, "", [])
    assert said(ran) == [
        f"error: {source} does not fit {other}: its hidden_size is 24, the draft was made for 16",
        "  hint: name the model that the draft was trained for: --verifier BASE",
    ]


@pytest.mark.usefixtures("vllm")
def test_a_draft_that_needs_a_flag_is_refused_with_the_way_to_give_it(cli: Any, eagle3: Any, executed: Any) -> None:
    output = eagle3().convert().output
    config = json.loads((output / "config.json").read_text())
    del config["norm_before_residual"]
    (output / "config.json").write_text(json.dumps(config))
    ran = cli("serve", output)
    assert (ran.code, ran.out, executed) == (1, "", [])
    assert "[norm-before-residual-unknown]" in ran.err
    assert f"`spec-convert convert {output} OUTPUT --verifier BASE` takes such flags" in ran.err


@pytest.mark.usefixtures("vllm")
def test_a_plugin_that_must_not_be_loaded_is_one_line(
    cli: Any, mlp: Any, executed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_PLUGINS", "lora")
    ran = cli("serve", mlp().convert().output)
    assert (ran.code, executed) == (2, [])
    problem, hint = said(ran)
    assert "`spec-convert`, which drafts of type `eagle_mlp` need" in problem
    assert hint.endswith("VLLM_PLUGINS=lora,spec-convert")


@pytest.mark.usefixtures("vllm")
@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--port", "8001"], "if it is one of vLLM's, put it after `--`: spec-convert serve DRAFT -- --port"),
        (["--model", "y"], "if it is one of vLLM's, put it after `--`: spec-convert serve DRAFT -- --model"),
        (["--speculative-config", "{}"], "put it after `--`: spec-convert serve DRAFT -- --speculative-config"),
        (["--verifer", "x"], "put it after `--`: spec-convert serve DRAFT -- --verifer"),
        (["--verifer", "x"], "is no option of `serve`, which has --verifier, --speculative-tokens, --dry-run"),
        (["8001"], "`8001` is neither the draft nor an option of vLLM"),
        (["--speculative-tokens", "0"], "0 is not in the range x>=1"),
    ],
)
def test_a_wrong_word_is_a_usage_error(cli: Any, eagle: Any, executed: Any, args: list[str], message: str) -> None:
    ran = cli("serve", eagle().convert().output, *args)
    assert (ran.code, ran.out, executed) == (2, "", [])
    assert message in ran.err


def test_no_draft_is_named(cli: Any) -> None:
    ran = cli("serve", "--dry-run")
    assert ran.code == 2
    assert "Missing argument 'DRAFT'" in ran.err
