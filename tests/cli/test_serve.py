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
        (["--verifer", "x"], "is no option of `serve`, which has --verifier, --speculative-tokens, --capture"),
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


def value_after(words: list[str], flag: str) -> Any:
    return json.loads(words[words.index(flag) + 1])


@pytest.mark.usefixtures("vllm")
def test_a_verifier_is_served_to_capture_its_states(
    cli: Any, make_verifier: Any, executed: Any, tmp_path: Path
) -> None:
    model, storage = make_verifier(), tmp_path / "some" / "states"
    args = ["--capture", model, "--layers", "1,4,8", "--storage", storage, "--dtype", "float32", "--", "--port", "8001"]
    ran = cli("serve", *args)
    (words,) = executed
    assert words[:3] == ["vllm", "serve", str(model)]
    speculative, transfer = value_after(words, "--speculative-config"), value_after(words, "--kv-transfer-config")
    assert speculative["method"] == "extract_hidden_states"
    assert speculative["draft_model_config"]["hf_config"] == {"eagle_aux_hidden_state_layer_ids": [1, 4, 8]}
    assert transfer["kv_connector_extra_config"] == {"shared_storage_path": str(storage), "dtype": "float32"}
    assert words[-3:] == ["--no-enable-prefix-caching", "--port", "8001"]
    assert ran.out == ""
    assert f"hidden states of layers 1,4,8 of 8 go to {storage}" in ran.err
    assert storage.is_dir()


@pytest.mark.usefixtures("vllm")
def test_a_dry_run_of_a_capture_prints_the_command_alone_and_makes_nothing(
    cli: Any, make_verifier: Any, executed: Any, unchanged: Any
) -> None:
    model = make_verifier(num_hidden_layers=16)
    unchanged()
    ran = cli("serve", "--capture", model, "--dry-run")
    words = shlex.split(ran.out)
    assert value_after(words, "--speculative-config")["draft_model_config"]["hf_config"] == {
        "eagle_aux_hidden_state_layer_ids": [2, 8, 13, 16]
    }
    extra = value_after(words, "--kv-transfer-config")["kv_connector_extra_config"]
    assert extra["dtype"] == "bfloat16"
    assert extra["shared_storage_path"] in ran.err
    assert ran.out.count("\n") == 1
    assert executed == []
    assert unchanged()


def test_without_the_command_of_vllm_a_capture_runs_its_module(
    cli: Any, vllm: Any, make_verifier: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "lacks_command", lambda: True)
    words = shlex.split(cli("serve", "--capture", make_verifier(), "--dry-run").out)
    assert words[:6] == [sys.executable, "-P", "-m", command.MODULE, "--model", words[5]]


@pytest.mark.usefixtures("vllm")
@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--capture", "--verifier", "x"], "--verifier belongs to a draft, and --capture serves a verifier alone"),
        (["--capture", "--speculative-tokens", "3"], "--speculative-tokens belongs to a draft"),
        (["--layers", "2"], "--layers belongs to --capture"),
        (["--storage", "x"], "to capture hidden states: serve --capture MODEL --storage"),
        (["--dtype", "float32"], "--dtype belongs to --capture"),
        (["--capture", "--layers", "1,9"], "the layers 1,9 are not ascending boundary ids from 0 to 8"),
        (["--capture", "--layers", "a"], "'a' is no list of layer numbers"),
        (["--capture", "--", "--enable-prefix-c"], "--enable-prefix-c would replace what makes vLLM capture"),
        (["--capture", "--", "--kv-transfer-config={}"], "--kv-transfer-config would replace what makes vLLM capture"),
        (["--capture", "--", "-sc.method", "x"], "-sc.method would replace what makes vLLM capture"),
        (["--capture", "--", "--model", "x"], "--model would replace the model whose states are captured"),
        (["--capture", "8001"], "`8001` is neither the draft nor an option of vLLM"),
    ],
)
def test_what_does_not_belong_to_a_capture_is_refused(
    cli: Any, make_verifier: Any, executed: Any, args: list[str], message: str
) -> None:
    ran = cli("serve", make_verifier(), *args)
    assert (ran.code, ran.out, executed) == (2, "", [])
    assert message in ran.err


@pytest.mark.usefixtures("vllm")
def test_a_draft_is_nothing_to_capture(cli: Any, eagle: Any, executed: Any) -> None:
    ran = cli("serve", "--capture", eagle().convert().output)
    assert (ran.code, executed) == (2, [])
    assert "is itself a draft" in ran.err


@pytest.mark.usefixtures("vllm")
def test_a_storage_that_cannot_be_written_is_one_line(
    cli: Any, make_verifier: Any, executed: Any, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    ran = cli("serve", "--capture", make_verifier(), "--storage", tmp_path / "file" / "states")
    assert (ran.code, executed) == (2, [])
    assert said(ran) == [
        f"error: cannot make {tmp_path}/file/states: Not a directory",
        "  hint: give another --storage",
    ]
