"""Dialects of EAGLE-3 that no tensor tells apart: what is said about it, and which flag settles it.

The verifier has eight layers: the default of those who count inputs is [2, 4, 5], of those who count outputs [1, 3, 4].
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch

Make = Callable[..., Any]
KEY = "eagle_aux_hidden_state_layer_ids"
SPECFORGE = {"architectures": ["LlamaForCausalLMEagle3"]}
TORCHSPEC = SPECFORGE | {"_torchspec_version": "0.1.0"}
Settled = tuple[dict[str, Any], Any]  # the flags that say it, and what is then written


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A draft that may be of two kinds. ``reads`` is the fact that differs, ``flag`` what the hint must name."""

    draft: dict[str, Any]
    rule: str
    flag: str
    reads: Callable[[dict[str, Any]], Any]
    settled: tuple[Settled, ...]


def residual(config: dict[str, Any]) -> Any:
    return config["norm_before_residual"]


def ids(config: dict[str, Any]) -> Any:
    return config[KEY]


def base(config: dict[str, Any]) -> Any:
    return config["transformer_layer_config"]["rope_theta"]


COUNTED = (({"aux_layer_convention": "boundary"}, [1, 3, 4]), ({"aux_layer_convention": "output"}, [2, 4, 5]))
BASES = (({"rope_theta": 10000.0}, 10000.0), ({"rope_theta": 1e6}, 1e6))
REFUSED = {
    "authors or research trainer": Pair(
        draft={"prefix": "layers.0."},
        rule="norm-before-residual-unknown",
        flag="`--no-norm-before-residual`",
        reads=residual,
        settled=(
            ({"norm_before_residual": False}, False),
            ({"norm_before_residual": True, "aux_layer_ids": [3, 5, 6]}, True),
        ),
    ),
    "research trainer or a released draft of it": Pair(
        draft={"prefix": "layers.0.", "norm_before_residual": True},
        rule="aux-layer-ids-unknown",
        flag="`--aux-layer-ids 3,5,6`",
        reads=ids,
        settled=(({"aux_layer_ids": [3, 5, 6]}, [3, 5, 6]), ({"aux_layer_ids": [2, 4, 5]}, [2, 4, 5])),
    ),
    "ids of the other default": Pair(
        draft=SPECFORGE | {"eagle_config": {KEY: [2, 4, 5]}},
        rule="aux-layer-ids",
        flag="`--aux-layer-convention boundary`",
        reads=ids,
        settled=(({"aux_layer_convention": "boundary"}, [2, 4, 5]), ({"aux_layer_convention": "output"}, [3, 5, 6])),
    ),
    "ids that count outputs among the authors'": Pair(
        draft={KEY: [1, 3, 4]},
        rule="aux-layer-ids",
        flag="`--aux-layer-convention output`",
        reads=ids,
        settled=COUNTED,
    ),
    "ids for trainers or for servers": Pair(
        draft=SPECFORGE | {KEY: [1, 3, 4]},
        rule="aux-layer-ids",
        flag="`--aux-layer-convention output`",
        reads=ids,
        settled=COUNTED,
    ),
    "ids up to the last layer": Pair(
        draft=SPECFORGE | {"eagle_config": {KEY: [4, 6, 8], "use_last_layernorm": True}},
        rule="aux-layer-ids",
        flag="`--aux-layer-convention boundary`",
        reads=ids,
        settled=(({"aux_layer_convention": "boundary"}, [4, 6, 8]),),
    ),
    "TorchSpec's engines": Pair(
        draft=TORCHSPEC, rule="aux-layer-ids", flag="`--aux-layer-convention output`", reads=ids, settled=COUNTED
    ),
    "a residual that an exporter wrote": Pair(
        draft=SPECFORGE | {"norm_before_residual": True, "eagle_config": {"use_last_layernorm": True}},
        rule="flag-contradicts-dialect",
        flag="`--no-norm-before-residual`",
        reads=residual,
        settled=(({"norm_before_residual": False}, False), ({"norm_before_residual": True}, True)),
    ),
}
SAID = {
    "SpecForge early or late, or AngelSlim": Pair(
        draft=SPECFORGE | {"rope_theta": 1e6},
        rule="rope-as-trained-unknown",
        flag="`--rope-theta 10000`",
        reads=base,
        settled=(({}, 1e6), *BASES),
    ),
    "AngelSlim as trained or as said": Pair(
        draft=SPECFORGE | {"rope_theta": 1e6, "tie_word_embeddings": True},
        rule="rope-not-as-config",
        flag="`--rope-theta 1e+06`",
        reads=base,
        settled=(({}, 10000.0), *BASES),
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_told_is_asked_for(eagle3: Make, name: str) -> None:
    pair = REFUSED[name]
    draft = eagle3(**pair.draft)
    assert pair.flag in draft.refusal()[pair.rule].hint
    for flags, written in pair.settled:
        assert pair.reads(draft.convert(**flags).config) == written


@pytest.mark.parametrize("name", SAID)
def test_what_may_be_otherwise_is_said(eagle3: Make, name: str) -> None:
    pair = SAID[name]
    draft = eagle3(**pair.draft)
    for flags, written in pair.settled:
        converted = draft.convert(**flags)
        assert pair.reads(converted.config) == written
        assert (pair.rule in converted.findings) is not bool(flags)
    assert pair.flag in draft.convert().findings[pair.rule].hint


def test_a_scaling_may_not_have_been_trained_either(specforge: Make) -> None:
    scaling = {"rope_type": "linear", "factor": 2.0}
    said = specforge(rope_theta=10000.0, rope_scaling=scaling).convert().findings["rope-as-trained-unknown"]
    assert "take rope_scaling out" in said.hint


def test_what_only_later_releases_wrote_was_trained_as_it_is_said(specforge: Make) -> None:
    assert "rope-as-trained-unknown" not in specforge(rope_theta=1e6, norm_output=True).convert().findings


SIGNS: dict[str, dict[str, Any]] = {
    "eagle3-specforge": {},
    "eagle3-angelslim": {"tie_word_embeddings": True},
    "eagle3-modelopt": {"eagle_config": {"next_layer_regular": True}},
    "eagle3-torchspec": {"_torchspec_version": "0.1.0"},
}


@pytest.mark.parametrize("dialect", SIGNS)
def test_four_dialects_share_an_architecture_and_one_sign_each_tells_them_apart(specforge: Make, dialect: str) -> None:
    converted = specforge(**SIGNS[dialect]).convert(aux_layer_ids=[2, 4, 5])
    assert converted.conversion.format == dialect


@pytest.mark.parametrize("dialect", SIGNS)
def test_without_a_sign_the_format_may_be_given(specforge: Make, dialect: str) -> None:
    converted = specforge(rope_theta=1e6).convert(format=dialect, aux_layer_ids=[2, 4, 5])
    assert converted.conversion.format == dialect
    assert base(converted.config) == (10000.0 if dialect == "eagle3-angelslim" else 1e6)
    assert ("format-forced" in converted.findings) is (dialect != "eagle3-specforge")


@pytest.mark.parametrize("prefix", ["midlayer.", "layers.0."])
def test_a_normed_output_means_three_things(eagle3: Make, specforge: Make, prefix: str) -> None:
    """Refused where the authors' code has none; before the head in SpecForge; fed back in a unified directory."""
    by_authors = eagle3(prefix=prefix, norm_output=True)
    assert "flag-contradicts-dialect" in by_authors.refusal(norm_before_residual=False)
    by_specforge = specforge(prefix=prefix, norm_output=True)
    converted = by_specforge.convert()
    assert converted.config["norm_output"] is False
    by_specforge.config, by_specforge.tensors = converted.config | {"norm_output": True}, converted.tensors
    assert by_specforge.convert().config["norm_output"] is True


@pytest.mark.parametrize("maps", [torch.zeros(32, dtype=torch.int64), torch.arange(32)])
@pytest.mark.parametrize("kind", [*SPECFORGE["architectures"], "LlamaForCausalLMEagle3SharedHead"])
def test_at_full_vocabulary_offsets_and_absolute_ids_say_the_same(eagle3: Make, kind: str, maps: Any) -> None:
    draft = eagle3(architectures=[kind], draft_vocab_size=32)
    draft.tensors |= {"lm_head.weight": torch.ones(32, 16), "d2t": maps, "t2d": torch.ones(32, dtype=torch.bool)}
    assert set(draft.convert().dropped) == {"d2t", "t2d"}


KEPT = torch.tensor([4, 5, 6, 7, 9, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 30, 31])
MARKS = torch.zeros(32, dtype=torch.bool).index_fill(0, KEPT, True)
OFFSETS = KEPT - torch.arange(20)
FIRST = torch.arange(32) < 20


@pytest.mark.parametrize(
    ("d2t", "t2d", "written"),
    [
        (OFFSETS, MARKS, OFFSETS),
        (KEPT, MARKS, OFFSETS),
        (OFFSETS.flip(0) + torch.arange(19, -1, -1) - torch.arange(20), MARKS, KEPT.flip(0) - torch.arange(20)),
        (torch.zeros(20, dtype=torch.int64), FIRST, torch.zeros(20, dtype=torch.int64)),
    ],
    ids=["offsets", "absolute ids", "offsets in any order", "the first tokens"],
)
def test_a_map_is_read_as_what_its_marks_confirm(eagle3: Make, d2t: Any, t2d: Any, written: Any) -> None:
    draft = eagle3()
    draft.tensors |= {"d2t": d2t.clone(), "t2d": t2d.clone()}
    assert torch.equal(draft.convert(validate=True).tensors["d2t"], written)


@pytest.mark.parametrize(
    ("d2t", "t2d", "rule"),
    [
        (torch.arange(20), FIRST, None),
        (torch.arange(20), MARKS, "d2t-inconsistent"),
        (torch.zeros(20, dtype=torch.int64), MARKS, "d2t-inconsistent"),
        (torch.zeros(20, dtype=torch.int64), None, "d2t-ambiguous"),
        (KEPT, None, "d2t-ambiguous"),
    ],
)
def test_a_map_that_nothing_confirms_is_refused(specforge: Make, d2t: Any, t2d: Any, rule: str | None) -> None:
    draft = specforge()
    draft.tensors["d2t"] = d2t.clone()
    draft.tensors.pop("t2d")
    if t2d is not None:
        draft.tensors["t2d"] = t2d.clone()
    if rule is None:
        assert not draft.convert().tensors["d2t"].any()
    else:
        assert "rebuild the map" in draft.refusal()[rule].hint
