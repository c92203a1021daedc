"""`spec-convert batch`: one file, many conversions, none of which stops the others."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import spec_convert.conversion

TOML = """
[defaults]
verifier = "verifier"

[[conversion]]
source = "first"
output = "out/first"

[[conversion]]
source = "broken"
output = "out/broken"

[[conversion]]
source = "third"
output = "out/third"
rope_theta = 12345
aux_layer_ids = [1, 4, 6]
"""


@pytest.fixture
def batch(cli: Any, eagle3: Any, tmp_path: Path) -> Callable[..., Any]:
    """Runs a manifest beside the drafts `first`, `broken` and `third`."""
    for name in ("first", "broken", "third"):
        shutil.copytree(eagle3().write(), tmp_path / name)
    (tmp_path / "broken" / "model.safetensors").write_bytes(b"")

    def run(text: str, *flags: str, name: str = "all.toml", before: tuple[str, ...] = ()) -> Any:
        (tmp_path / name).write_text(text)
        return cli(*before, "batch", tmp_path / name, *flags)

    return run


def test_one_failure_does_not_stop_the_rest(batch: Any, tmp_path: Path) -> None:
    ran = batch(TOML)
    assert ran.code == 2
    assert [line.split()[:2] for line in ran.out.splitlines()[1:]] == [
        ["done", "first"],
        ["failed", "broken"],
        ["done", "third"],
    ]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["first", "third"]


def test_each_entry_has_the_flags_of_convert(batch: Any, tmp_path: Path) -> None:
    batch(TOML)
    config = json.loads((tmp_path / "out" / "third" / "config.json").read_text())
    assert config["eagle_aux_hidden_state_layer_ids"] == [1, 4, 6]
    assert config["transformer_layer_config"]["rope_theta"] == 12345


def test_an_entry_may_say_how_layer_ids_are_counted(batch: Any, tmp_path: Path) -> None:
    entry = '[[conversion]]\nsource = "first"\noutput = "o"\naux_layer_convention = "output"\n'
    batch(entry + f'verifier = "{tmp_path / "verifier"}"')
    assert json.loads((tmp_path / "o" / "config.json").read_text())["eagle_aux_hidden_state_layer_ids"] == [3, 5, 6]


def test_paths_start_from_the_manifest_wherever_the_command_runs(
    batch: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    batch(TOML)
    assert (tmp_path / "out" / "first" / "config.json").is_file()
    assert not list(elsewhere.iterdir())


def test_the_progress_and_the_failure_are_narrated(batch: Any) -> None:
    err = batch(TOML).err
    order = [err.index(f"Conversion {number} of 3") for number in (1, 2, 3)]
    assert order == sorted(order)
    assert order[1] < err.index("error: model.safetensors") < order[2]


def test_quiet_narrates_nothing_but_failures(batch: Any) -> None:
    err = batch(TOML, before=("-q",)).err
    assert "Conversion" not in err
    assert err.startswith("error: model.safetensors")


def test_json_in_and_json_out(batch: Any) -> None:
    manifest = {"conversion": [{"source": "first", "output": "a", "verifier": "verifier"}]}
    ran = batch(json.dumps(manifest), "--json", name="all.json")
    assert ran.code == 0
    [done] = ran.json["conversions"]
    assert (done["source"], done["output"], done["status"], done["exit_code"]) == ("first", "a", "done", 0)


def test_a_refused_checkpoint_alone_is_exit_1(batch: Any, eagle: Any) -> None:
    draft = eagle()
    del draft.tensors["fc.weight"]
    draft.write()
    assert batch('[[conversion]]\nsource = "draft"\noutput = "o"\nverifier = "verifier"').code == 1


def test_even_a_bug_in_one_conversion_lets_the_others_run(batch: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    convert = spec_convert.conversion.convert

    def buggy(source: str, output: Path, **flags: Any) -> Any:
        if source.endswith("first"):
            raise ZeroDivisionError("by surprise")
        return convert(source, output, **flags)

    monkeypatch.setattr(spec_convert.conversion, "convert", buggy)
    ran = batch(TOML)
    assert "internal error: ZeroDivisionError: by surprise" in ran.err
    assert ran.out.splitlines()[3].startswith("done")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[[conversion]]\nsource = "first"\noutput = "o"\nrope_teta = 1', "conversion 1: `rope_teta` is no flag"),
        ("[defaults]\njson = true\n[[conversion]]\n", "conversion 1: `json` is no flag"),
        ('[[conversion]]\nsource = "first"', "conversion 1 has no `output`"),
        ('[[conversion]]\nsource = "a"\noutput = "b"\nrope_theta = "x"', "'x' is not a valid float"),
        ('[[conversion]]\nsource = "a"\noutput = "b"\naux_layer_ids = [1, "x"]', "no list of layer numbers"),
        ('[[conversion]]\nsource = "a"\noutput = "b"\naux_layer_convention = "x"', "'x' is not one of"),
        ('[[conversion]]\nsource = "a"\noutput = "b"\nvalidate = 7', "'7' is not a valid boolean"),
        ('[[conversion]]\nsource = "a"\noutput = "b"\nrope_theta = true', "'True' is not a valid float"),
        ("conversion = 3", "lists no conversion"),
        ("defaults = 3\n[[conversion]]\n", "lists no conversion"),
        ("", "lists no conversion"),
        ("[[conversion", "cannot be read"),
    ],
)
def test_a_wrong_manifest_is_said_before_anything_runs(batch: Any, tmp_path: Path, text: str, message: str) -> None:
    ran = batch(text)
    assert (ran.code, ran.out) == (2, "")
    assert message in ran.err
    assert not (tmp_path / "out").exists()


def test_a_manifest_that_is_not_there_is_a_usage_error(cli: Any, tmp_path: Path) -> None:
    ran = cli("batch", tmp_path / "nothing.toml")
    assert ran.code == 2
    assert "does not exist" in ran.err
