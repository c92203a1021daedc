"""What vLLM is told of a draft: as little as it needs, and whatever differs from what the directory says by itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from spec_convert.servable import Servable, servable
from spec_convert.serving.speculative import llm_arguments, verifier_arguments

from ..hub.conftest import hub  # noqa: F401  the Hub of tests/hub
from ..hub.server import FakeHub


@pytest.fixture
def drafted(eagle3: Callable[..., Any]) -> Servable:
    return servable(eagle3().convert().output)


def test_a_directory_alone_says_everything(drafted: Servable) -> None:
    assert llm_arguments(drafted) == {"model": drafted.draft}
    assert llm_arguments(drafted, speculative_tokens=3) == {"model": drafted.draft}  # its own number
    assert verifier_arguments(drafted) == {"model": drafted.verifier.name}


def test_another_number_of_tokens_is_said_beside_it(drafted: Servable) -> None:
    expected = {"model": drafted.draft, "speculative_config": {"num_speculative_tokens": 5}}
    assert llm_arguments(drafted, speculative_tokens=5) == expected


def test_a_folder_is_named_from_the_root_because_servers_start_anywhere(
    drafted: Servable, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(drafted.draft)
    monkeypatch.chdir(folder.parent)
    assert llm_arguments(servable(folder.name)) == {"model": str(folder)}


@pytest.mark.parametrize(
    ("kind", "method"),
    [
        ("dflash", {"method": "dflash"}),
        ("dspark", {"method": "dspark"}),
        ("eagle", {"method": "eagle"}),
        ("eagle3", {"method": "eagle3"}),
        ("mlp", {"method": "eagle"}),
        ("peagle", {"method": "eagle3", "parallel_drafting": True}),
    ],
)
def test_another_verifier_is_paired_with_the_draft_explicitly(
    kind: str, method: dict[str, Any], request: pytest.FixtureRequest, make_verifier: Callable[..., Path]
) -> None:
    converted = request.getfixturevalue(kind)().convert(speculative_tokens=4).output
    tuned = make_verifier("tuned")
    assert llm_arguments(servable(converted, verifier=tuned)) == {
        "model": str(tuned),
        "speculative_config": {**method, "model": str(converted), "num_speculative_tokens": 4},
    }


def test_ids_of_the_hub_stay_ids_and_keep_their_revisions(
    hub: FakeHub,  # noqa: F811
    eagle3: Callable[..., Any],
    verifier: Path,
) -> None:
    hub.publish("org/base", verifier)
    base = hub.publish("org/base", verifier, ref="tuned")
    output = eagle3().convert(verifier="org/base").output
    hub.publish("org/draft", output)
    hub.publish("org/draft", output, ref="v2")
    assert llm_arguments(servable("hf://org/draft")) == {"model": "org/draft"}
    speculative = {"method": "eagle3", "model": "org/draft", "num_speculative_tokens": 3}
    assert llm_arguments(servable("org/draft@v2")) == {
        "model": "org/base",
        "speculative_config": speculative | {"revision": "v2"},
    }
    pinned = servable("org/draft", verifier="org/base@tuned")
    assert llm_arguments(pinned) == {"model": "org/base", "revision": base, "speculative_config": speculative}
    assert verifier_arguments(pinned) == {"model": "org/base", "revision": base}
    assert not replace(pinned.verifier, pinned=False).pinned
