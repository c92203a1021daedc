"""A draft is loaded whole or not at all: no tensor left over, no parameter left unfilled."""

from __future__ import annotations

import pytest

from spec_convert.serving.loading import strictly

PARAMETERS = [
    "embed_tokens.weight",
    "fc.weight",
    "fc.bias",
    "layers.0.self_attn.qkv_proj.weight",
    "layers.0.mlp.gate_up_proj.weight",
]
GIVEN = [
    "fc.weight",
    "fc.bias",
    "layers.0.self_attn.q_proj.weight",
    "layers.0.self_attn.k_proj.weight",
    "layers.0.self_attn.v_proj.weight",
    "layers.0.mlp.gate_proj.weight",
    "layers.0.mlp.up_proj.weight",
]
EMBEDDING = "embed_tokens.weight"


@pytest.mark.parametrize("own", [[], [EMBEDDING]])
def test_a_whole_checkpoint_passes_with_or_without_what_the_verifier_lends(own: list[str]) -> None:
    strictly([*GIVEN, *own], PARAMETERS, shared=[EMBEDDING])


@pytest.mark.parametrize("name", GIVEN)
def test_a_missing_tensor_is_named(name: str) -> None:
    with pytest.raises(ValueError, match=f"no tensor for {name}"):
        strictly([other for other in GIVEN if other != name], PARAMETERS, shared=[EMBEDDING])


@pytest.mark.parametrize("name", ["layers.0.self_attn.q_proj.bias", "norm.weight"])
def test_a_tensor_without_a_place_is_named(name: str) -> None:
    with pytest.raises(ValueError, match=f"no parameter for {name}"):
        strictly([*GIVEN, name], PARAMETERS, shared=[EMBEDDING])


def test_an_embedding_that_nobody_lends_must_be_there() -> None:
    with pytest.raises(ValueError, match=r"no tensor for embed_tokens\.weight"):
        strictly(GIVEN, PARAMETERS)
