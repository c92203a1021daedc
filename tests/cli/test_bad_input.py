"""Every way in which input can be bad: one clear error with a hint, the right exit code, nothing half-written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from .conftest import Ran


@pytest.fixture
def refused(cli: Any, unchanged: Any, tmp_path: Path) -> Callable[..., Ran]:
    """Converts what must be refused; checks what holds for every refusal, and returns what was said."""

    def convert(source: object, verifier: object, *flags: object) -> Ran:
        unchanged()
        ran = cli("convert", source, tmp_path / "out", "--verifier", verifier, *flags)
        assert ran.code in (1, 2)
        assert ran.out == ""
        assert "Traceback" not in ran.err
        assert "internal error" not in ran.err
        assert "  hint: " in ran.err
        assert unchanged(), "something was left behind"
        return ran

    return convert


def errors(ran: Ran) -> list[str]:
    return [line for line in ran.err.splitlines() if line.startswith("error: ")]


def test_a_folder_that_does_not_exist(refused: Any, verifier: Path) -> None:
    ran = refused("./does/not/exist", verifier)
    assert ran.code == 2
    assert "is no file or folder here and no id on the Hub" in ran.err


def test_a_folder_that_holds_nothing(refused: Any, verifier: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    ran = refused(tmp_path / "empty", verifier)
    assert ran.code == 2
    assert "holds no files" in ran.err


def test_no_config_json(refused: Any, eagle: Any) -> None:
    draft = eagle()
    (draft.write() / "config.json").unlink()
    ran = refused(draft.folder, draft.verifier)
    assert ran.code == 1
    assert "there is no config.json" in ran.err


@pytest.mark.parametrize("text", ["", "{", "[1]", "null", "\x00"])
def test_a_config_that_is_no_json_object(refused: Any, eagle: Any, text: str) -> None:
    draft = eagle()
    (draft.write() / "config.json").write_text(text)
    ran = refused(draft.folder, draft.verifier)
    assert len(errors(ran)) == 1
    assert "config.json" in ran.err


def test_a_config_that_lacks_facts_names_all_of_them(refused: Any, eagle: Any) -> None:
    draft = eagle(hidden_act=..., rms_norm_eps=...)
    ran = refused(draft.write(), draft.verifier)
    assert ran.code == 1
    assert ["`hidden_act`" in ran.err, "`rms_norm_eps`" in ran.err] == [True, True]


def test_an_unknown_format_says_what_was_seen_and_what_came_nearest(refused: Any, eagle: Any) -> None:
    draft = eagle()
    draft.tensors["fc.weight"] = torch.zeros(16, 24)
    ran = refused(draft.write(), draft.verifier)
    assert ran.code == 1
    [error] = errors(ran)
    assert "architecture LlamaForCausalLM, tensors fc.weight" in error
    assert "the nearest is `eagle`, which fails on: not: a fusion `fc.weight`" in error


def test_a_missing_tensor(refused: Any, eagle: Any) -> None:
    draft = eagle()
    del draft.tensors["layers.0.mlp.up_proj.weight"]
    ran = refused(draft.write(), draft.verifier)
    assert ran.code == 1
    assert "layers.0.mlp.up_proj.weight" in errors(ran)[0]
    assert "[missing-tensor]" in errors(ran)[0]


def test_an_extra_tensor(refused: Any, eagle: Any) -> None:
    draft = eagle()
    draft.tensors["adapter.weight"] = torch.zeros(2)
    ran = refused(draft.write(), draft.verifier)
    assert ran.code == 1
    assert "adapter.weight" in errors(ran)[0]
    assert "[unclaimed-tensor]" in errors(ran)[0]


def test_a_wrong_shape(refused: Any, eagle: Any) -> None:
    draft = eagle()
    draft.tensors["layers.0.mlp.up_proj.weight"] = torch.zeros(39, 16)
    ran = refused(draft.write(), draft.verifier)
    assert ran.code == 1
    assert "[wrong-shape]" in errors(ran)[0]
    assert "39" in errors(ran)[0]


def test_a_weight_that_is_not_finite(refused: Any, eagle: Any) -> None:
    draft = eagle()
    draft.tensors["fc.weight"][3, 3] = float("inf")
    ran = refused(draft.write(), draft.verifier)
    assert ran.code == 1
    assert "[not-finite]" in errors(ran)[0]


@pytest.mark.parametrize(("key", "value"), [("hidden_size", 18), ("vocab_size", 33)])
def test_a_verifier_that_does_not_fit(refused: Any, eagle: Any, make_verifier: Any, key: str, value: int) -> None:
    ran = refused(eagle().write(), make_verifier("other", **{key: value}))
    assert ran.code == 1
    [error] = errors(ran)
    assert f"its {key} is {value}" in error
    assert "[verifier-mismatch]" in error


@pytest.mark.parametrize("break_it", [Path.unlink, lambda path: path.write_text("{}"), lambda p: p.write_text("[")])
def test_a_verifier_that_says_nothing(refused: Any, eagle: Any, verifier: Path, break_it: Any) -> None:
    break_it(verifier / "config.json")
    assert refused(eagle().write(), verifier).code == 2


def test_no_verifier_at_all(cli: Any, eagle: Any, tmp_path: Path) -> None:
    ran = cli("convert", eagle().write(), tmp_path / "out")
    assert ran.code == 2
    assert "hint: name it with `--verifier`" in ran.err
    assert not (tmp_path / "out").exists()


def test_a_format_that_does_not_exist(refused: Any, eagle: Any) -> None:
    draft = eagle()
    ran = refused(draft.write(), draft.verifier, "--format", "eagel")
    assert ran.code == 2
    assert "did you mean `eagle`?" in ran.err


def test_an_output_inside_a_file(cli: Any, eagle: Any, tmp_path: Path) -> None:
    draft, file = eagle(), tmp_path / "file"
    file.write_text("")
    ran = cli("convert", draft.write(), file / "out", "--verifier", draft.verifier)
    assert ran.code == 2
    assert "cannot write" in ran.err


def test_the_source_is_never_the_output(cli: Any, eagle: Any) -> None:
    draft = eagle()
    before = {path.name: path.read_bytes() for path in draft.write().iterdir()}
    ran = cli("convert", draft.folder, draft.folder, "--verifier", draft.verifier, "--force")
    assert ran.code == 2
    assert {path.name: path.read_bytes() for path in draft.folder.iterdir()} == before


@pytest.mark.usefixtures("unreachable")
def test_no_network(refused: Any, verifier: Path) -> None:
    ran = refused("org/draft", verifier)
    assert ran.code == 2
    assert "and there is no folder or file org/draft here" in ran.err
    assert "HF_HUB_OFFLINE=1" in ran.err


def test_an_unknown_id_that_might_have_been_a_folder(refused: Any, hub: Any, verifier: Path) -> None:
    ran = refused("does/not-exist", verifier)
    assert ran.code == 2
    assert "the Hub has no such repository" in ran.err
    assert "and there is no folder or file does/not-exist here" in ran.err


def test_an_unknown_id_that_is_said_to_be_one(refused: Any, hub: Any, verifier: Path) -> None:
    assert "no folder" not in refused("hf://does/not-exist", verifier).err


def test_a_private_repository(refused: Any, hub: Any, verifier: Path) -> None:
    hub.publish("org/private", {"config.json": b"{}"}, private=True)
    ran = refused("org/private", verifier)
    assert ran.code == 2
    assert "it is private and nobody is signed in" in ran.err
    assert "`hf auth login`" in ran.err


def test_a_gated_repository(refused: Any, hub: Any, eagle: Any) -> None:
    draft = eagle()
    hub.publish("org/gated", draft.write(), gated=True)
    ran = refused("org/gated", draft.verifier)
    assert ran.code == 2
    assert "the repository is gated" in ran.err
    assert "/org/gated, then sign in" in ran.err


def test_a_verifier_id_that_does_not_exist(refused: Any, hub: Any, eagle: Any) -> None:
    ran = refused(eagle().write(), "org/base")
    assert ran.code == 2
    assert "org/base" in errors(ran)[0]
