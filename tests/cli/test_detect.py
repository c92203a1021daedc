"""`spec-convert detect` and `inspect`: what a checkpoint is and holds, for people and for scripts."""

from __future__ import annotations

import json
from typing import Any

import torch


def test_detect_names_the_format_what_tells_and_the_features(cli: Any, eagle: Any) -> None:
    ran = cli("detect", eagle().write())
    assert (ran.code, ran.err) == (0, "")
    first, *rest = ran.out.splitlines()
    assert first == "eagle (confidence 0.5): EAGLE-1 and EAGLE-2"
    assert any(line.startswith("  + a fusion `fc.weight`") for line in rest)
    assert "  fusion_bias: False" in rest
    assert "  draft_vocab_size: not given" in rest


def test_detect_as_json_keeps_its_contract(cli: Any, eagle3: Any) -> None:
    answer = cli("detect", eagle3().write(), "--json").json
    assert {"format", "confidence", "evidence", "features"} <= set(answer)
    assert (answer["format"], answer["features"]["draft_vocab_size"]) == ("eagle3", 20)
    assert answer["evidence"]["for"]
    assert answer["evidence"]["against"] == []


def test_detect_says_what_else_it_may_be(cli: Any, eagle: Any) -> None:
    draft = eagle(bias=False)
    draft.tensors["fc.bias"] = torch.zeros(16)
    ran = cli("detect", draft.write())
    assert ran.out.startswith("hass (")
    assert "also possible: eagle" in ran.out


def test_inspect_folds_names_and_counts_bytes(cli: Any, eagle: Any) -> None:
    ran = cli("inspect", eagle(layers=4).write())
    assert ran.code == 0
    assert "layers.{0...3}.mlp.down_proj.weight" in ran.out
    assert ran.out.splitlines()[-1].endswith("safetensors in model.safetensors")


def test_inspect_needs_no_known_format(cli: Any, eagle: Any) -> None:
    draft = eagle()
    draft.tensors = {"strange": torch.zeros(3, 5)}
    assert "F32    3 x 5  strange" in cli("inspect", draft.write()).out
    assert cli("detect", draft.folder).code == 1


def test_inspect_as_json_lists_every_tensor(cli: Any, eagle: Any) -> None:
    draft = eagle(layers=2)
    answer = cli("inspect", draft.write(), "--json").json
    assert [tensor["name"] for tensor in answer["tensors"]] == sorted(draft.tensors)
    assert answer["bytes"] == sum(tensor.nbytes for tensor in draft.tensors.values())
    assert answer["config"] == draft.config


def test_a_single_weight_file_is_a_source(cli: Any, eagle: Any) -> None:
    file = eagle().write() / "model.safetensors"
    assert cli("detect", file, "--json").json["format"] == "eagle"


def test_terminal_escapes_of_a_config_reach_the_terminal_spelled_out(cli: Any, eagle: Any) -> None:
    draft = eagle(architectures=["\x1b[2JHidden"])
    del draft.tensors["fc.weight"]
    ran = cli("detect", draft.write())
    assert ran.code == 1
    assert "\\x1b[2JHidden" in ran.err
    assert "\x1b" not in ran.err


def test_json_is_the_same_whether_anybody_narrates_or_not(cli: Any, eagle: Any) -> None:
    folder = eagle().write()
    assert json.loads(cli("-q", "detect", folder, "--json").out) == cli("detect", folder, "--json").json


def test_detect_as_json_says_why_there_is_no_answer(cli: Any, eagle: Any) -> None:
    draft = eagle()
    draft.tensors = {"something.else": torch.zeros(3)}
    ran = cli("detect", draft.write(), "--json")
    assert (ran.code, ran.json["format"], ran.json["confidence"]) == (1, None, 0.0)
    assert ran.json["findings"][0]["rule"] == "unknown-format"


def test_inspect_as_json_stays_json_beside_numbers_that_json_lacks(cli: Any, eagle: Any) -> None:
    draft = eagle(limit=[0.0, float("inf")], nothing=float("nan"))
    config = cli("inspect", draft.write(), "--json").json["config"]
    assert (config["limit"], config["nothing"]) == ([0.0, "inf"], "nan")
