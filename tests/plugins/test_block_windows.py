"""What rows of a block see: the words of each publisher, read alike, and those that no unified config can say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from ..tiny import Tiny

Make = Callable[..., Tiny]
FULL, SLIDING = "full_attention", "sliding_attention"
NEED_THE_PLUGIN = "windows-need-the-plugin"


def windows(draft: Tiny) -> tuple[list[str], int | None, bool]:
    written = draft.convert()
    return written.layer["layer_types"], written.layer["sliding_window"], written.config["sliding_window_non_causal"]


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ({}, ([FULL, FULL], None, True)),
        ({"layer_types": [FULL, FULL]}, ([FULL, FULL], None, True)),
        ({"is_causal": False}, ([FULL, FULL], None, True)),
        ({"layer_types": [FULL, FULL], "sliding_window": 5}, ([FULL, FULL], None, True)),
        ({"layer_types": [SLIDING] * 2, "sliding_window": 5}, ([SLIDING] * 2, 5, False)),
        ({"layer_types": [SLIDING, FULL], "sliding_window": 5}, ([SLIDING, FULL], 5, False)),
        ({"layer_types": [SLIDING, FULL], "sliding_window": 5, "is_causal": False}, ([SLIDING, FULL], 5, True)),
        ({"layer_types": [SLIDING] * 2, "sliding_window": 5, "is_causal": True}, ([SLIDING] * 2, 5, False)),
    ],
)
def test_the_words_at_the_top_level(
    dflash: Make, said: dict[str, Any], meant: tuple[list[str], int | None, bool]
) -> None:
    assert windows(dflash(layers=2, layer_types=...).set(**said)) == meant


def test_modelopts_words_for_a_window_in_every_layer(dflash: Make) -> None:
    draft = dflash(layers=2, layer_types=[FULL, FULL], sliding_window=5)
    draft.config["dflash_config"] |= {"use_swa": True, "swa_window_size": 5, "causal": False}
    assert windows(draft) == ([SLIDING, SLIDING], 5, True)


@pytest.mark.parametrize(
    ("said", "rule", "message"),
    [
        ({"is_causal": True}, "not-representable", "rows of full layers would see only those before them"),
        ({"layer_types": [SLIDING, FULL]}, "config-key-missing", "swa_window_size"),
        ({"layer_types": [SLIDING], "sliding_window": 5}, "config-invalid", "1 layer_types for 2 layers"),
        ({"layer_types": [SLIDING, "chunked"], "sliding_window": 5}, "config-invalid", "sliding_attention"),
        ({"layer_types": ..., "use_sliding_window": True}, "not-representable", "no `layer_types`"),
        (
            {"layer_types": [SLIDING] * 2, "sliding_window": 5, "use_sliding_window": False},
            "config-contradicts-itself", "`use_sliding_window` is false",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_or_said_is_refused(dflash: Make, said: dict[str, Any], rule: str, message: str) -> None:
    assert message in dflash(layers=2).set(**said).refusal()[rule].message


@pytest.mark.parametrize("types", [[FULL, FULL], [SLIDING, FULL], [SLIDING, SLIDING]], ids=" ".join)
@pytest.mark.parametrize("non_causal", [True, False])
@pytest.mark.parametrize("kind", ["dflash", "dspark"])
def test_a_warning_says_where_a_stock_vllm_shows_other_rows(
    kind: str, types: list[str], non_causal: bool, request: pytest.FixtureRequest
) -> None:
    draft = request.getfixturevalue(kind)(layers=2, layer_types=types, sliding_window=5)
    said = {"is_causal": False} if non_causal else {}
    mixed, slides = len(set(types)) == 2, SLIDING in types
    wrong = (mixed and not non_causal) if kind == "dflash" else (slides and non_causal)
    assert (NEED_THE_PLUGIN in draft.set(**said).convert().findings) == wrong


def test_a_library_directory_without_windows_is_read_as_it_is_meant(dflash: Make) -> None:
    """The speculators library writes `false` of drafts without sliding layers: vLLM then computes all causally."""
    draft = dflash()
    draft.config, draft.tensors = (once := draft.convert()).config, once.tensors
    assert draft.set(sliding_window_non_causal=False).convert().config == once.config
    del draft.config["sliding_window_non_causal"]
    assert draft.convert().config == once.config


def test_a_unified_draft_with_windows_must_say_what_they_show(dflash: Make) -> None:
    draft = dflash(layer_types=[SLIDING], sliding_window=5)
    draft.config, draft.tensors = (once := draft.convert()).config, once.tensors
    assert (
        "sliding_window_non_causal" in draft.set(sliding_window_non_causal=...).refusal()["config-key-missing"].message
    )
