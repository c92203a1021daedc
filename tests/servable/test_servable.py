"""Any draft becomes a unified directory that an engine reads as it was meant; what cannot is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from spec_convert.errors import Refused, Unreadable, UsageError
from spec_convert.servable import servable

from ..hub.conftest import hub  # noqa: F401  the Hub of tests/hub
from ..hub.server import FakeHub
from .conftest import Conversions
from .folders import bytes_of, edit, edit_envelope

# A unified directory


def test_a_unified_directory_is_itself(eagle3: Any, conversions: Conversions, cache: Path) -> None:
    made = eagle3().convert(speculative_tokens=5)
    found = servable(made.output)
    assert (found.draft, found.verifier.name, found.own_verifier) == (
        str(made.output), made.config["speculators_config"]["verifier"]["name_or_path"], True,
    )  # fmt: skip
    assert found.speculative_tokens == 5
    assert conversions == []
    assert not cache.exists()


@pytest.mark.parametrize("kind", ["eagle", "eagle3", "mlp", "old_library"])
def test_every_type_that_we_write_is_taken_as_it_is(
    kind: str, request: pytest.FixtureRequest, conversions: Conversions
) -> None:
    made = request.getfixturevalue(kind)().convert()
    assert servable(made.output).draft == str(made.output)
    assert conversions == []


def test_another_verifier_may_be_given(eagle: Any, make_verifier: Any) -> None:
    found = servable(eagle().convert().output, verifier=make_verifier("other"))
    assert found.verifier.name.endswith("/other")
    assert not found.own_verifier


def test_the_same_verifier_in_other_words_is_its_own(
    eagle: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = eagle().convert().output
    monkeypatch.chdir(tmp_path)
    assert servable(output, verifier="./verifier/").own_verifier


def test_a_verifier_named_by_a_relative_path_is_not_left_to_the_server(
    eagle: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = servable(edit_envelope(eagle().convert().output, name_or_path="verifier"))
    assert found.verifier.name == str(tmp_path / "verifier")
    assert not found.own_verifier


def test_a_directory_that_leaves_a_fact_to_the_server_is_converted(eagle3: Any, conversions: Conversions) -> None:
    output = edit(eagle3().convert().output, norm_output=..., fc_norm=...)
    found = servable(output)
    assert conversions == [str(output)]
    assert json.loads((Path(found.draft) / "config.json").read_text())["norm_output"] is False


@pytest.mark.parametrize(
    ("named", "beside"), [("model.safetensors", "other.safetensors"), (".", "optimizer.safetensors")]
)
def test_weights_beside_the_ones_that_count_are_not_served_too(
    eagle: Any, conversions: Conversions, named: str, beside: str
) -> None:
    output = eagle().convert().output
    save_file(load_file(output / "model.safetensors"), output / beside)
    found = servable(output / named)
    assert conversions == [str(output / named)]
    assert [path.name for path in Path(found.draft).glob("*.safetensors")] == ["model.safetensors"]
    assert bytes_of(found.draft) == bytes_of(output)


def test_a_broken_unified_directory_is_refused_before_a_server_takes_it(eagle: Any) -> None:
    output = eagle().convert().output
    tensors = load_file(output / "model.safetensors")
    del tensors["fc.weight"]
    save_file(tensors, output / "model.safetensors")
    with pytest.raises(Refused, match=r"fc\.weight"):
        servable(output)


# What cannot be served


def test_a_draft_that_names_no_verifier_asks_for_one(eagle: Any) -> None:
    with pytest.raises(UsageError, match="does not say which model it was trained for") as problem:
        servable(eagle().write())
    assert "--verifier" in problem.value.hint


def test_a_verifier_that_has_moved_is_asked_for(eagle: Any, tmp_path: Path) -> None:
    made = eagle().convert()
    (tmp_path / "verifier").rename(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match=f"{made.output} names a verifier that is not there: .*/verifier") as problem:
        servable(made.output)
    assert problem.value.hint == "say where it is: --verifier BASE"
    assert servable(made.output, verifier=tmp_path / "elsewhere").verifier.name == str(tmp_path / "elsewhere")


def test_a_verifier_that_is_not_there_is_named_as_it_was_given(eagle: Any) -> None:
    with pytest.raises(Unreadable, match="no/where/at/all: is no file or folder"):
        servable(eagle().write(), verifier="no/where/at/all")


@pytest.mark.parametrize("unified", [True, False])
@pytest.mark.parametrize(("key", "value"), [("hidden_size", 24), ("vocab_size", 40)])
def test_a_draft_that_does_not_fit_is_a_usage_error(
    eagle: Any, make_verifier: Any, key: str, value: int, unified: bool
) -> None:
    draft = eagle()
    source = draft.convert().output if unified else draft.write()
    with pytest.raises(UsageError, match=rf"does not fit .*/other: its {key} is {value}") as problem:
        servable(source, verifier=make_verifier("other", **{key: value}))
    assert "--verifier" in problem.value.hint


def test_a_verifier_with_too_few_layers_does_not_serve_unnoticed(eagle3: Any, make_verifier: Any) -> None:
    with pytest.raises(Refused, match="layer"):
        servable(eagle3().convert().output, verifier=make_verifier("flat", num_hidden_layers=2))


@pytest.mark.parametrize("shadowed", ["org/unified", "org/base"])
def test_a_folder_with_the_name_of_a_repository_would_be_taken_instead(
    hub: FakeHub,  # noqa: F811
    eagle3: Any,
    shadowed: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    draft = eagle3()
    hub.publish("org/base", draft.verifier)
    hub.publish("org/unified", draft.convert(verifier="org/base").output)
    monkeypatch.chdir(tmp_path)
    assert servable("hf://org/unified", verifier="hf://org/base").draft == "hf://org/unified"
    (tmp_path / shadowed).mkdir(parents=True)
    with pytest.raises(UsageError, match=f"engines would take the folder {shadowed} here") as problem:
        servable("hf://org/unified", verifier="hf://org/base")
    assert problem.value.hint == "run this from another folder"


def test_what_needs_a_flag_is_sent_to_convert(eagle3: Any) -> None:
    output = edit(eagle3().convert().output, norm_before_residual=...)
    with pytest.raises(Refused) as refused:
        servable(output)
    finding = next(finding for finding in refused.value.findings if finding.rule == "norm-before-residual-unknown")
    assert "--no-norm-before-residual" in finding.hint
    assert f"`spec-convert convert {output} OUTPUT --verifier BASE` takes such flags" in finding.hint
