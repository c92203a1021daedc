"""Layouts that are recognised and not converted, as every verb tells them."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from spec_convert import validate
from spec_convert.errors import Refused
from spec_convert.registry import registry
from spec_convert.servable import servable
from spec_convert.testing import tiny_checkpoint, tiny_verifier

from ..medusa import environment
from ..tiny import RECOGNISED


@pytest.mark.parametrize("name", RECOGNISED)
def test_what_is_not_converted_is_detected_and_says_why(cli: Any, name: str, tmp_path: Path) -> None:
    draft = tiny_checkpoint(name, tmp_path / "draft")
    ran = cli("detect", str(draft), "--json")
    assert (ran.code, ran.json["format"]) == (0, name)
    assert ran.json["features"]["converted"] is False
    assert "SOURCE" not in ran.json["features"]["instead"]
    text = cli("detect", str(draft)).out
    assert "converted: False" in text
    assert f"because: {ran.json['features']['because']}" in text


@pytest.mark.parametrize("name", RECOGNISED)
def test_it_is_refused_by_every_verb_that_would_use_it(cli: Any, name: str, tmp_path: Path) -> None:
    draft, verifier = tiny_checkpoint(name, tmp_path / "draft"), tiny_verifier(tmp_path / "verifier")
    why_not = registry()[name].unconverted
    assert why_not is not None
    wanted = "served-as-it-lies" if why_not.served else "not-converted"
    wanted = "weights-quantised" if name == "quantised" else wanted  # with the scheme, which differs from file to file
    for flags in (["--verifier", str(verifier)], []):
        ran = cli("convert", str(draft), str(tmp_path / "out"), *flags)
        assert ran.code == 1
        assert f"[{wanted}]" in ran.err
    assert not (tmp_path / "out").exists()
    assert [f.rule for f in validate(draft, verifier=verifier).checked[0].findings] == [wanted]
    with pytest.raises(Refused) as refused:
        servable(draft, verifier=verifier)
    assert refused.value.findings[0].hint == why_not.instead.replace("SOURCE", str(draft))


def test_formats_does_not_promise_what_is_not_done(cli: Any) -> None:
    lines = {line.split()[0]: line for line in cli("formats").out.splitlines()[1:]}
    assert "  not converted: served as it lies  " in lines["pard"]
    assert "  not converted  " in lines["hydra"]
    told = cli("formats", "hydra").out
    assert "why: each head also reads the tokens" in told
    assert "instead: " in told
    listed = {fmt["name"]: fmt["unconverted"] for fmt in cli("formats", "--json").json}
    assert listed["hydra"]["because"].startswith("each head")
    assert listed["eagle"] is None


def test_the_medusa_plugin_wins_over_the_format_that_names_it(tmp_path: Path) -> None:
    draft = tiny_checkpoint("medusa-heads", tmp_path / "draft")
    installed = os.environ | environment(tmp_path / "site")
    command = ["spec-convert", "detect", str(draft), "--json"]
    ran = subprocess.run(command, env=installed, capture_output=True, text=True, check=True)
    answer = json.loads(ran.stdout)
    assert (answer["format"], answer["also_possible"], answer["findings"]) == ("medusa", {}, [])
