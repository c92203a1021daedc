"""DSpark in each of its layouts, and unified DSpark directories: the one head that servers compute, or a refusal."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from spec_convert import convert, detect

from ..conftest import RANK, SIZES
from ..tiny import Tiny, random
from .test_dflash import rules, unified

Make = Callable[..., Tiny]


def at_the_top(draft: Tiny) -> Tiny:
    """The same draft as NeMo and DeepSeek write it: a flat config, copies of the verifier's tables."""
    own = draft.config["dflash_config"]
    draft.tensors |= SIZES.embedding() | SIZES.embedding("lm_head.weight")
    return draft.set(architectures=["Qwen3DSparkModel"], num_anchors=512, dflash_config=..., **own)


def modelopt(draft: Tiny) -> Tiny:
    draft.rename("markov_head.", "").rename("confidence_head.proj.", "confidence_proj.")
    own = draft.config["dflash_config"] | {"use_confidence_head": True, "shift_label": True}
    for key in ("enable_confidence_head", "confidence_head_with_markov"):
        own.pop(key)
    return draft.set(architectures=["DFlashDraftModel"], dflash_config=own)


def early(draft: Tiny) -> Tiny:
    """As SpecForge wrote it first."""
    return draft.rename("markov_head.", "logit_head.markov_head.").rename(
        "confidence_head.", "logit_head.confidence_head."
    )


@pytest.mark.parametrize("layout", [at_the_top, modelopt, early])
def test_every_layout_becomes_one(dspark: Make, layout: Callable[[Tiny], Tiny]) -> None:
    draft = dspark(layers=2)
    plain = draft.convert()
    layout(draft)
    assert detect(draft.write()).format == "dspark"
    written = draft.convert(validate=True)
    assert written.config == plain.config
    assert all(torch.equal(written.tensors[name], tensor) for name, tensor in plain.tensors.items())


def test_a_block_is_as_many_tokens_as_rows_because_the_first_row_guesses_too(dspark: Make) -> None:
    written = dspark(block_size=7).convert().config
    assert written["sample_from_anchor"] is True
    assert written["speculators_config"]["proposal_methods"][0]["speculative_tokens"] == 7


def test_labels_that_were_not_shifted_are_guessed_behind_the_newest_token(dspark: Make) -> None:
    draft = modelopt(dspark(block_size=7))
    draft.config["dflash_config"]["shift_label"] = False
    written = draft.convert().config
    assert written["sample_from_anchor"] is False
    assert written["speculators_config"]["proposal_methods"][0]["speculative_tokens"] == 6


@pytest.mark.parametrize("prefix", ["", "markov_head.", "logit_head.markov_head."])
@pytest.mark.parametrize("gate", ["gate_proj", "joint_proj"])
def test_heads_that_read_the_row_are_refused_by_their_tensors(dspark: Make, gate: str, prefix: str) -> None:
    draft = dspark()
    draft.tensors |= random({f"{prefix}{gate}.weight": (RANK, SIZES.hidden + RANK)})
    assert "the vanilla Markov head alone" in draft.refusal()["refused-tensor"].message


@pytest.mark.parametrize("head", ["gated", "rnn", "RNN", 3])
def test_heads_that_read_the_row_are_refused_by_their_name(dspark: Make, head: Any) -> None:
    draft = dspark()
    draft.config["dflash_config"]["markov_head_type"] = head
    assert "the vanilla Markov head alone" in draft.refusal()["not-representable"].message


@pytest.mark.parametrize("architecture", ["Gemma4DSparkModel", "KimiK3DSparkModel", ""])
def test_layers_of_other_models_are_refused(dspark: Make, architecture: str) -> None:
    assert "no unified draft has" in dspark(architectures=[architecture]).refusal()["not-representable"].message


def test_without_a_confidence_head(dspark: Make) -> None:
    draft = dspark()
    del draft.tensors["confidence_head.proj.weight"], draft.tensors["confidence_head.proj.bias"]
    assert "`enable_confidence_head` is true" in draft.refusal()["missing-tensor"].message
    draft.config["dflash_config"] |= {"enable_confidence_head": False, "confidence_head_with_markov": False}
    written = draft.convert(validate=True).config
    assert (written["enable_confidence_head"], written["confidence_head_with_markov"]) == (False, False)


def test_the_width_of_the_confidence_head_says_what_it_reads(dspark: Make) -> None:
    draft = dspark()
    draft.tensors["confidence_head.proj.weight"] = torch.ones(1, SIZES.hidden)
    assert "confidence_head_with_markov" in draft.refusal()["config-contradicts-tensors"].message
    draft.config["dflash_config"].pop("confidence_head_with_markov")
    assert draft.convert(validate=True).config["confidence_head_with_markov"] is False
    draft.tensors["confidence_head.proj.weight"] = torch.ones(1, SIZES.hidden + 1)
    assert draft.refusal()["wrong-shape"].where == "confidence_head.proj.weight"


@pytest.mark.parametrize("rank", [..., 0, RANK + 1])
def test_the_rank_must_be_that_of_the_head(dspark: Make, rank: Any) -> None:
    draft = dspark()
    own = {
        key: value for key, value in (draft.config["dflash_config"] | {"markov_rank": rank}).items() if value is not ...
    }
    refusal = draft.set(dflash_config=own).refusal()
    assert refusal.keys() & {"config-key-missing", "config-key-invalid", "wrong-shape"}


def test_a_vocabulary_of_its_own_has_a_bias_for_each_of_its_tokens(dspark: Make) -> None:
    draft = dspark(draft_vocab_size=20)
    draft.tensors |= SIZES.reduced_head(range(4, 24))
    assert "wrong-shape" in draft.refusal()
    draft.tensors |= random({"markov_head.markov_w2.weight": (20, RANK)})
    assert draft.convert(validate=True).config["draft_vocab_size"] == 20


def test_converting_it_again_changes_no_byte(dspark: Make, tmp_path: Path) -> None:
    once = dspark(layers=2).convert(speculative_tokens=5).output
    twice = convert(once, tmp_path / "twice").output
    for file in ("config.json", "model.safetensors"):
        assert (once / file).read_bytes() == (twice / file).read_bytes(), file


def test_a_unified_one_is_sound_at_every_level(dspark: Make) -> None:
    assert rules(unified(dspark(layers=2)), "forward") == {}


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"enable_confidence_head": ...}, "left-to-servers"),
        ({"sample_from_anchor": ...}, "config-key-missing"),
        ({"markov_head_type": "gated"}, "not-representable"),
        ({"markov_rank": ...}, "config-key-missing"),
    ],
    ids=str,
)
def test_what_servers_would_guess_of_it(dspark: Make, change: dict[str, Any], rule: str) -> None:
    assert rule in rules(unified(dspark()).set(**change))
