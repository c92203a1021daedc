"""The command that starts vLLM: one that serves this draft with this verifier, or a reason why not."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from spec_convert.errors import UsageError
from spec_convert.servable import servable
from spec_convert.serving import command as module
from spec_convert.serving.command import become, command_line, require_plugin, vllm_command

from ..hub.server import FakeHub


@pytest.fixture(autouse=True)
def _stock_vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    """One whose command `vllm` runs, whatever is installed here."""
    monkeypatch.setattr(module, "lacks_command", lambda: False)


def speculative(command: list[str]) -> Any:
    return json.loads(command[command.index("--speculative-config") + 1])


def test_a_directory_that_names_its_verifier_says_it_all(eagle3: Any) -> None:
    output = eagle3().convert().output
    assert vllm_command(servable(output)) == ["vllm", "serve", str(output)]


def test_the_folder_is_absolute_wherever_the_command_is_typed(
    eagle: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = eagle().convert().output
    monkeypatch.chdir(tmp_path)
    assert vllm_command(servable(output.name)) == ["vllm", "serve", str(output)]


def test_another_number_of_tokens_is_said_beside_it(eagle3: Any) -> None:
    output = eagle3().convert(speculative_tokens=3).output
    command = vllm_command(servable(output), speculative_tokens=5)
    assert command[:3] == ["vllm", "serve", str(output)]
    assert speculative(command) == {"num_speculative_tokens": 5}
    assert vllm_command(servable(output), speculative_tokens=3) == ["vllm", "serve", str(output)]


@pytest.mark.parametrize(("kind", "method"), [("eagle", "eagle"), ("mlp", "eagle"), ("eagle3", "eagle3")])
def test_another_verifier_is_served_with_the_draft_beside_it(
    kind: str, method: str, request: pytest.FixtureRequest, make_verifier: Any
) -> None:
    output, other = request.getfixturevalue(kind)().convert(speculative_tokens=4).output, make_verifier("other")
    command = vllm_command(servable(output, verifier=other))
    assert command[:4] == ["vllm", "serve", str(other), "--speculative-config"]
    assert speculative(command) == {"method": method, "model": str(output), "num_speculative_tokens": 4}


def test_what_is_meant_for_vllm_comes_last_and_unchanged(eagle: Any) -> None:
    output, extra = eagle().convert().output, ["--port", "8001", "--hf-overrides", '{"a": "b c"}', "-q"]
    assert vllm_command(servable(output), extra=extra) == ["vllm", "serve", str(output), *extra]


@pytest.mark.parametrize(
    "word",
    [
        "--speculative-config",
        "--speculative_config={}",
        "-sc",
        "--speculative-config.model",
        "--speculative_config.model=x",
    ],
)
def test_a_second_speculative_config_would_drop_the_draft(eagle: Any, make_verifier: Any, word: str) -> None:
    drafted = servable(eagle().convert().output, verifier=make_verifier("other"))
    with pytest.raises(UsageError, match=r"would replace the one that names this draft"):
        vllm_command(drafted, extra=["--port", "1", word])


def test_an_only_speculative_config_adds_to_what_the_directory_says(eagle: Any) -> None:
    extra = ["--speculative-config.attention_backend", "FLASH_ATTN"]
    assert vllm_command(servable(eagle().convert().output), extra=extra)[3:] == extra


@pytest.mark.parametrize(
    "word", ["--model", "--model=x", "--revision", "--spec-model", "--spec_model=x", "--spec_method", "--spec-mod"]
)
@pytest.mark.parametrize("own", [True, False])
def test_another_model_or_draft_is_not_passed_on(eagle: Any, make_verifier: Any, word: str, own: bool) -> None:
    drafted = servable(eagle().convert().output, verifier=None if own else make_verifier("other"))
    with pytest.raises(UsageError, match="would replace the draft or its verifier") as problem:
        vllm_command(drafted, extra=["--port", "1", word])
    assert "--verifier" in problem.value.hint
    assert "--dry-run" in problem.value.hint


def test_options_with_names_like_those_are_passed_on(eagle: Any) -> None:
    extra = ["--model-impl", "vllm", "--served-model-name", "--spec-tokens=2", "--max_model_len", "9"]
    assert vllm_command(servable(eagle().convert().output), extra=extra)[3:] == extra


def test_arguments_are_spelt_as_vllm_reads_them() -> None:
    arguments = {"model": "m", "enforce_eager": True, "enable_prefix_caching": False, "dtype": "half", "override": {}}
    words = ["--enforce-eager", "--no-enable-prefix-caching", "--dtype", "half", "--override", "{}"]
    assert command_line(arguments, []) == ["vllm", "serve", "m", *words]


def test_a_stray_word_is_not_passed_on(eagle: Any) -> None:
    with pytest.raises(UsageError, match="`8001` is neither the draft nor an option of vLLM") as problem:
        vllm_command(servable(eagle().convert().output), extra=["8001"])
    assert "after `--`" in problem.value.hint


def test_a_build_without_the_command_is_started_as_a_module(eagle: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "lacks_command", lambda: True)
    output = eagle().convert().output
    command = vllm_command(servable(output), extra=["--port", "1"])
    assert command == [sys.executable, "-P", "-m", module.MODULE, "--model", str(output), "--port", "1"]


# On the Hub


def test_a_unified_directory_on_the_hub_is_named_by_its_id(hub: FakeHub, eagle3: Any) -> None:
    hub.publish("org/unified", eagle3().convert().output)
    for source in ("org/unified", "hf://org/unified"):
        assert vllm_command(servable(source)) == ["vllm", "serve", "org/unified"]


def test_the_revision_of_the_draft_is_not_taken_for_the_verifiers(hub: FakeHub, eagle3: Any) -> None:
    draft = eagle3()
    hub.publish("org/unified", draft.convert().output, ref="v1")
    command = vllm_command(servable("hf://org/unified@v1"))
    assert command[:3] == ["vllm", "serve", str(draft.verifier)]
    assert (speculative(command)["model"], speculative(command)["revision"]) == ("org/unified", "v1")
    assert "--revision" not in command


def test_a_pinned_verifier_is_served_at_that_commit(hub: FakeHub, eagle3: Any) -> None:
    draft = eagle3()
    pinned = hub.publish("org/base", draft.verifier, ref="old")
    hub.publish("org/base", {"config.json": b"{}"})
    command = vllm_command(servable(draft.write(), verifier="org/base@old"))
    assert command[:5] == ["vllm", "serve", "org/base", "--revision", pinned]


# The plugin


@pytest.mark.parametrize("kind", ["eagle", "mlp"])
@pytest.mark.parametrize(
    ("allowed", "hint"),
    [
        ("", "VLLM_PLUGINS=spec-convert"),
        ("lora", "VLLM_PLUGINS=lora,spec-convert"),
        ("a, spec-convert", "spec-convert"),
    ],
)
def test_a_vllm_that_must_not_load_the_plugin_is_refused(
    kind: str, allowed: str, hint: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_PLUGINS", allowed)
    with pytest.raises(UsageError, match="VLLM_PLUGINS keeps vLLM from loading the plugin `spec-convert`") as problem:
        require_plugin(servable(request.getfixturevalue(kind)().convert().output))
    assert problem.value.hint.endswith(hint)


@pytest.mark.parametrize(
    ("kind", "allowed"),
    [("eagle", "a,spec-convert"), ("eagle", None), ("eagle3", ""), ("peagle", ""), ("dflash", ""), ("dspark", "")],
)
def test_a_vllm_that_can_serve_the_draft_is_not(
    kind: str, allowed: str | None, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("VLLM_PLUGINS", raising=False)
    if allowed is not None:
        monkeypatch.setenv("VLLM_PLUGINS", allowed)
    require_plugin(servable(request.getfixturevalue(kind)().convert().output))


@pytest.mark.parametrize("bias", ["attention_bias", "mlp_bias"])
@pytest.mark.parametrize("layer", ["qwen3", "llama"])
def test_eagle3_needs_it_for_the_biases_that_vllm_would_drop(
    eagle3: Any, layer: str, bias: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    drafted = servable(eagle3().convert().output)
    config: Any = drafted.config
    layers = config.transformer_layer_config.model_copy(update={"model_type": layer, bias: True})
    drafted = replace(drafted, config=config.model_copy(update={"transformer_layer_config": layers}))
    monkeypatch.setenv("VLLM_PLUGINS", "foo")
    if layer == "llama":
        require_plugin(drafted)
        return
    with pytest.raises(UsageError, match="`eagle3` with biases in Qwen3 layers need") as problem:
        require_plugin(drafted)
    assert problem.value.hint.endswith("VLLM_PLUGINS=foo,spec-convert")


def test_the_name_is_that_of_our_entry_point() -> None:
    from importlib.metadata import entry_points

    point = entry_points(group="vllm.general_plugins")[module.PLUGIN]
    assert point.value == "spec_convert.serving.plugin:register"


# The program


@pytest.fixture
def executed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, list[str]]]:
    calls: list[tuple[str, list[str]]] = []
    monkeypatch.setattr(module.os, "execv", lambda *call: calls.append(call))
    return calls


def script(folder: Path) -> Path:
    folder.mkdir()
    (folder / "vllm").touch(mode=0o755)
    return folder / "vllm"


def test_the_vllm_of_this_python_comes_before_the_one_on_path(
    executed: list[tuple[str, list[str]]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    beside, on_path = script(tmp_path / "bin"), script(tmp_path / "other")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bin" / "python"))
    monkeypatch.setenv("PATH", str(on_path.parent))
    become(["vllm", "serve", "x"])
    beside.unlink()
    become(["vllm", "serve", "x"])
    assert executed == [(str(p), [str(p), "serve", "x"]) for p in (beside, on_path)]


def test_a_module_is_run_by_the_python_that_the_command_names(executed: list[tuple[str, list[str]]]) -> None:
    become([sys.executable, "-m", "module"])
    assert executed == [(sys.executable, [sys.executable, "-m", "module"])]


def test_no_command_anywhere_is_said(
    executed: list[tuple[str, list[str]]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="its command `vllm` is not on PATH"):
        become(["vllm", "serve", "x"])
    assert executed == []


def test_dflash_needs_it_for_windows_that_vllm_would_misread(dflash: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    types = ["sliding_attention", "full_attention"]
    drafted = servable(dflash(layers=2, layer_types=types, sliding_window=5).convert().output)
    monkeypatch.setenv("VLLM_PLUGINS", "foo")
    with pytest.raises(UsageError, match="`dflash` with these sliding windows need"):
        require_plugin(drafted)
