"""Training goes on with drafts of any format: their function, what of them trains, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from spec_convert import load_draft
from spec_convert.errors import SpecConvertError, UsageError
from spec_convert.models.contract import Borrowed, Draft
from spec_convert.training.drafts.building import new_draft
from spec_convert.training.drafts.pretrained import pretrained_draft
from spec_convert.training.drafts.saving import save_draft
from spec_convert.training.drafts.shape import DraftShape
from spec_convert.verifier import open_verifier

from ...tiny import Tiny


@pytest.fixture
def verifier(make_verifier: Callable[..., Path]) -> Path:
    """The one that the drafts of all layouts in these tests fit; they are tinier than other tests of the training."""
    return make_verifier()


def opened(tiny: Tiny, kind: str, **choices: Any) -> Draft:
    return pretrained_draft(tiny.write(), open_verifier(tiny.verifier), kind=kind, shape=DraftShape(**choices))


@torch.no_grad()
def logits(draft: Draft, width: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(7)
    ids = torch.randint(32, (2, 9), generator=generator)
    states = torch.randn(2, 9, width, generator=generator, dtype=torch.float64)
    return draft.double()(ids, states, fed_back=False).logits


@pytest.mark.parametrize(
    ("layout", "kind", "states"),
    [("eagle3", "eagle3", 3), ("specforge", "eagle3", 3), ("eagle", "eagle", 1), ("mlp", "eagle-mlp", 1)],
)
def test_a_published_draft_computes_what_its_conversion_computes(
    layout: str, kind: str, states: int, request: pytest.FixtureRequest
) -> None:
    tiny: Tiny = request.getfixturevalue(layout)()
    draft = opened(tiny, kind)
    converted = load_draft(tiny.convert().output)
    assert draft.training
    assert {name for name, p in draft.named_parameters() if p.requires_grad} == {*draft.state_dict()} - {"d2t", "t2d"}
    assert {parameter.dtype for parameter in draft.parameters()} == {torch.float32}
    assert torch.equal(logits(draft, 16 * states), logits(converted, 16 * states))


def test_a_unified_draft_is_taken_where_it_lies_and_trained_on(eagle3: Callable[..., Tiny], tmp_path: Path) -> None:
    tiny = eagle3(layers=2)
    unified, verifier = tiny.convert().output, open_verifier(tiny.verifier)
    draft = pretrained_draft(unified, verifier, kind="eagle3", shape=DraftShape(num_hidden_layers=2))
    save_draft(draft, tmp_path / "on", verifier=verifier, provenance={}, dtype="float32")
    for name in ("config.json", "model.safetensors"):
        assert (tmp_path / "on" / name).read_bytes() == (unified / name).read_bytes()


def test_a_copy_of_the_verifiers_embedding_is_shared_again(eagle: Callable[..., Tiny]) -> None:
    tiny = eagle()
    copy = load_file(tiny.verifier / "model.safetensors")["model.embed_tokens.weight"]
    tiny.tensors = tiny.tensors | {"embed_tokens.weight": copy}
    draft = opened(tiny, "hass")
    assert isinstance(draft.get_submodule("embed_tokens"), Borrowed)
    assert "embed_tokens.weight" not in draft.state_dict()


def test_an_embedding_of_its_own_is_kept_and_does_not_train(eagle: Callable[..., Tiny]) -> None:
    tiny = eagle()
    other = load_file(tiny.verifier / "model.safetensors")["model.embed_tokens.weight"].half().float() + 1e-3
    tiny.tensors = tiny.tensors | {"embed_tokens.weight": other}
    draft = opened(tiny, "eagle")
    assert torch.equal(draft.state_dict()["embed_tokens.weight"], other)
    frozen = [name for name, parameter in draft.named_parameters() if not parameter.requires_grad]
    assert frozen == ["embed_tokens.weight"]


def shared_head(verifier: Path, folder: Path, *, with_head: bool) -> Path:
    shape, base = DraftShape(target_layers=(1, 3, 5)), open_verifier(verifier)
    draft = new_draft("eagle3-shared-head", base, shape, vocabulary=None, seed=0)
    save_draft(draft, folder, verifier=base, provenance={}, dtype="float32", with_head=with_head)
    return folder


@pytest.mark.parametrize("with_head", [False, True])
def test_a_shared_head_is_shared_again_whether_it_was_stored_or_not(
    with_head: bool, qwen3: Path, tmp_path: Path
) -> None:
    folder = shared_head(qwen3, tmp_path / "draft", with_head=with_head)
    draft = pretrained_draft(folder, open_verifier(qwen3), kind="eagle3-shared-head", shape=DraftShape())
    assert isinstance(draft.lm_head, Borrowed)
    assert not draft.state_dict().keys() & {"lm_head.weight", "embed_tokens.weight"}


def test_another_width_goes_on_training_its_tables(qwen3: Path, tmp_path: Path) -> None:
    shape = DraftShape(target_layers=(1, 3, 5), hidden_size=48, num_attention_heads=2, head_dim=32)
    base = open_verifier(qwen3)
    draft = new_draft("eagle3", base, shape, vocabulary=None, seed=0)
    save_draft(draft, tmp_path / "draft", verifier=base, provenance={}, dtype="float32")
    again = pretrained_draft(tmp_path / "draft", base, kind="eagle3", shape=shape)
    assert again.get_parameter("embed_tokens.weight").requires_grad
    assert all(torch.equal(again.state_dict()[name], tensor) for name, tensor in draft.state_dict().items())


@pytest.mark.parametrize(
    ("layout", "kind", "choices", "words"),
    [
        ("eagle", "eagle3", {}, "is a draft of type eagle; those of kind eagle3 are eagle3"),
        ("eagle3", "eagle3-shared-head", {}, "has a head that is not its verifier's"),
        ("eagle3", "eagle3", {"num_hidden_layers": 2}, "has num_hidden_layers 1, not 2"),
        ("eagle3", "eagle3", {"target_layers": (1, 2, 3)}, r"has target_layers [2, 4, 5], not [1, 2, 3]"),
        ("eagle3", "eagle3", {"fc_norm": True}, "has fc_norm False, not True"),
        ("mlp", "eagle-mlp", {"num_hidden_layers": 3}, "has num_hidden_layers 2, not 3"),
    ],
)
def test_another_kind_or_shape_is_refused(
    layout: str, kind: str, choices: dict[str, Any], words: str, request: pytest.FixtureRequest
) -> None:
    with pytest.raises(UsageError) as refused:
        opened(request.getfixturevalue(layout)(), kind, **choices)
    assert words in refused.value.message


def test_a_draft_without_a_head_of_its_own_is_not_trained_as_one_that_has_it(qwen3: Path, tmp_path: Path) -> None:
    folder = shared_head(qwen3, tmp_path / "draft", with_head=False)
    with pytest.raises(UsageError, match="shares its verifier's head") as refused:
        pretrained_draft(folder, open_verifier(qwen3), kind="eagle3", shape=DraftShape())
    assert "eagle3-shared-head" in refused.value.hint


def test_another_verifier_is_refused(eagle3: Callable[..., Tiny], qwen3: Path) -> None:
    with pytest.raises(UsageError, match=r"does not fit .*its vocab_size is 512, the draft was made for 32"):
        pretrained_draft(eagle3().write(), open_verifier(qwen3), kind="eagle3", shape=DraftShape())


def test_what_a_conversion_must_be_told_is_said_with_a_way_out(eagle3: Callable[..., Tiny]) -> None:
    tiny = eagle3().set(eagle_aux_hidden_state_layer_ids=[1, 3, 4])
    with pytest.raises(SpecConvertError) as refused:
        opened(tiny, "eagle3")
    assert "spec-convert convert" in refused.value.hint
