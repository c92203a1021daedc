"""Fresh drafts: what they begin with, what of them trains, and which choices are refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from spec_convert import narration
from spec_convert.errors import UsageError
from spec_convert.models.contract import Borrowed, Draft
from spec_convert.models.load import read_torch
from spec_convert.models.mlp import MlpDraft
from spec_convert.training.capture.final_norm import norm_weight
from spec_convert.training.drafts.building import KINDS, new_draft
from spec_convert.training.drafts.shape import DraftShape
from spec_convert.unified import Eagle3Config, EagleConfig
from spec_convert.verifier import open_verifier

from ..small import HIDDEN, VOCABULARY
from .conftest import some_tokens, write_model

SHAPES = {kind: DraftShape(target_layers=(1, 3, 5)) if "eagle3" in kind else DraftShape() for kind in KINDS}
KINDS_HERE = sorted(SHAPES.keys() - {"p-eagle"})


def made(kind: str, verifier: Path, vocabulary: Any = None, *, seed: int = 0, **choices: Any) -> Draft:
    shape = SHAPES[kind].updated(**choices)
    return new_draft(kind, open_verifier(verifier), shape, vocabulary=vocabulary, seed=seed)


def table(verifier: Path, name: str) -> torch.Tensor:
    return read_torch(open_verifier(verifier).checkpoint, name, torch.float32)


@pytest.mark.parametrize("kind", KINDS_HERE)
def test_the_same_seed_gives_the_same_draft_and_another_one_another(kind: str, verifier: Path) -> None:
    before = torch.random.get_rng_state()
    first, again, other = (made(kind, verifier, seed=seed).state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("kind", KINDS_HERE)
def test_it_is_of_float32_and_everything_in_its_checkpoint_trains(kind: str, verifier: Path) -> None:
    draft = made(kind, verifier)
    assert {name for name, p in draft.named_parameters() if p.requires_grad} == draft.state_dict().keys()
    assert {tensor.dtype for tensor in draft.state_dict().values()} == {torch.float32}
    assert draft.training


def test_the_head_of_eagle3_begins_as_the_rows_of_its_tokens(verifier: Path) -> None:
    d2t, t2d = vocabulary = some_tokens(100)
    draft = made("eagle3", verifier, vocabulary)
    state = draft.state_dict()
    assert torch.equal(state["lm_head.weight"], table(verifier, "lm_head.weight")[torch.arange(100) + d2t])
    assert torch.equal(state["d2t"], d2t)
    assert torch.equal(state["t2d"], t2d)
    assert torch.equal(state["norm.weight"], norm_weight(open_verifier(verifier)))
    assert isinstance(draft.get_submodule("embed_tokens"), Borrowed)


def test_a_whole_vocabulary_with_a_head_that_trains(verifier: Path) -> None:
    draft = made("eagle3", verifier)
    state = draft.state_dict()
    assert torch.equal(state["lm_head.weight"], table(verifier, "lm_head.weight"))
    assert draft.get_parameter("lm_head.weight").requires_grad
    assert not state.keys() & {"d2t", "t2d"}


def test_the_shared_head_is_frozen_and_not_in_the_checkpoint(
    verifier: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    narration.listen()
    try:
        draft = made("eagle3-shared-head", verifier)
    finally:
        narration.listen(wanted=False)
    assert "Loading and freezing lm_head from target model (shared head variant)" in capsys.readouterr().err
    assert not draft.state_dict().keys() & {"lm_head.weight", "embed_tokens.weight", "d2t", "t2d"}
    assert not any(name.startswith(("lm_head", "embed_tokens")) for name, _ in draft.named_parameters())
    assert torch.equal(draft.head, table(verifier, "lm_head.weight"))
    assert not draft.head.requires_grad


def test_training_the_shared_head_draft_reaches_everything_but_head_and_embedding(verifier: Path) -> None:
    draft = made("eagle3-shared-head", verifier)
    ids = torch.tensor([[1, 2, 3, 4]])
    draft(ids, torch.randn(1, 4, 3 * HIDDEN)).logits.square().sum().backward()
    assert all(p.grad is not None and bool(p.grad.any()) for p in draft.parameters())


@pytest.mark.parametrize("kind", ["eagle", "hass"])
def test_eagle_borrows_the_verifiers_tables(kind: str, verifier: Path) -> None:
    draft = made(kind, verifier)
    assert isinstance(draft.get_submodule("embed_tokens"), Borrowed)
    assert isinstance(draft.lm_head, Borrowed)


@pytest.mark.parametrize(("kind", "width"), [("eagle3", 64), ("eagle3-shared-head", 64), ("eagle3", 96)])
def test_the_fusion_of_eagle3_begins_by_passing_the_highest_state_on(kind: str, width: int, verifier: Path) -> None:
    draft = made(kind, verifier, hidden_size=width, num_attention_heads=2, head_dim=32)
    states = torch.randn(50, 3 * HIDDEN)
    fused, highest = states @ draft.get_parameter("fc.weight").T, states[:, 2 * HIDDEN :]
    # A wider draft turns the states: what they have to do with each other stays.
    assert torch.cosine_similarity((fused @ fused.T).flatten(), (highest @ highest.T).flatten(), dim=0) > 0.95


def test_the_mlp_begins_with_tables_of_its_own_that_are_the_verifiers(verifier: Path) -> None:
    draft = made("eagle-mlp", verifier, num_hidden_layers=3)
    assert isinstance(draft, MlpDraft)
    assert draft.config.mlp_layers == 3
    assert torch.equal(draft.embeddings.weight, table(verifier, "model.embed_tokens.weight"))
    assert torch.equal(draft.head, table(verifier, "lm_head.weight"))


def test_tied_tables_are_one_tensor_when_shared_and_two_when_trained(tmp_path: Path) -> None:
    verifier = write_model(tmp_path / "tied", "llama", tie_word_embeddings=True)
    shared, trained = made("eagle", verifier), made("eagle-mlp", verifier)
    assert shared.head.data_ptr() == shared.get_buffer("embed_tokens.weight").data_ptr()
    assert trained.head.data_ptr() != trained.get_parameter("embeddings.weight").data_ptr()


def test_another_width_than_the_verifiers_has_tables_of_its_own_in_one_geometry(verifier: Path) -> None:
    draft = made("eagle3", verifier, some_tokens(), hidden_size=48, num_attention_heads=2, head_dim=32)
    assert isinstance(draft.config, Eagle3Config)
    assert draft.config.target_hidden_size == HIDDEN
    state = draft.state_dict()
    assert state["embed_tokens.weight"].shape == (VOCABULARY, 48)
    assert draft.get_parameter("embed_tokens.weight").requires_grad
    d2t, _ = some_tokens()
    rows = torch.arange(100) + d2t
    ours = state["embed_tokens.weight"][rows] @ state["lm_head.weight"].T
    theirs = table(verifier, "model.embed_tokens.weight")[rows] @ table(verifier, "lm_head.weight")[rows].T
    agreement = torch.corrcoef(torch.stack((ours.flatten(), theirs.flatten())))[0, 1]
    assert agreement > 0.5  # 0 for two projections that have nothing to do with each other


def test_a_wider_draft_keeps_the_geometry_exactly(verifier: Path) -> None:
    state = made("eagle3", verifier, hidden_size=96, num_attention_heads=2, head_dim=32).state_dict()
    embedding, head = table(verifier, "model.embed_tokens.weight"), table(verifier, "lm_head.weight")
    ours = state["embed_tokens.weight"].double() @ state["lm_head.weight"].double().T
    torch.testing.assert_close(ours, embedding.double() @ head.double().T, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("family", "kind", "layers", "normed", "biased"),
    [
        ("llama", "eagle3", "llama", False, False),
        ("qwen2", "eagle3", "llama", False, False),
        ("qwen3", "eagle3", "qwen3", True, False),
        ("qwen3", "eagle", "llama", False, False),
        ("qwen2", "eagle", "llama", False, True),
    ],
)
def test_the_verifiers_family_decides(  # noqa: PLR0917
    family: str, kind: str, layers: str, normed: bool, biased: bool, request: pytest.FixtureRequest
) -> None:
    verifier = request.getfixturevalue("verifier" if family == "llama" else family)
    draft = made(kind, verifier)
    assert isinstance(draft.config, Eagle3Config | EagleConfig)
    assert draft.config.transformer_layer_config.model_type == layers
    state = draft.state_dict()
    assert ("layers.0.self_attn.q_norm.weight" in state) == normed
    assert ("layers.0.self_attn.q_proj.bias" in state) == biased
    assert "layers.0.self_attn.o_proj.bias" not in state


def test_llama_layers_may_be_chosen_for_qwen3(qwen3: Path) -> None:
    state = made("eagle3", qwen3, model_type="llama").state_dict()
    assert "layers.0.self_attn.q_norm.weight" not in state
    with pytest.raises(UsageError, match="EAGLE drafts have Llama layers"):
        made("eagle", qwen3, model_type="qwen3")


def layer_of(draft: Draft) -> Any:
    config: Any = draft.config
    return config.transformer_layer_config


def test_the_rotation_is_the_verifiers_in_old_keys_and_new(changed: Callable[..., Path]) -> None:
    scaling = {"rope_type": "linear", "factor": 2.0}
    old = changed(rope_parameters=..., rope_theta=7e5, rope_scaling=scaling)
    layer = layer_of(made("eagle3", old))
    assert (layer.rope_theta, layer.rope_scaling) == (7e5, scaling)


def test_a_chosen_base_leaves_the_verifiers_scaling_behind(changed: Callable[..., Path]) -> None:
    scaled = changed(rope_parameters={"rope_type": "linear", "factor": 2.0, "rope_theta": 7e5})
    layer = layer_of(made("eagle3", scaled, rope_theta=1e4))
    assert (layer.rope_theta, layer.rope_scaling) == (1e4, None)
    assert layer_of(made("eagle3", scaled)).rope_scaling == {"rope_type": "linear", "factor": 2.0}


def test_facts_of_a_nested_text_config_are_found(changed: Callable[..., Path], verifier: Path) -> None:
    import json

    text = json.loads((verifier / "config.json").read_text())
    assert layer_of(made("eagle", changed(text_config=text, hidden_size=7))) == layer_of(made("eagle", verifier))


def test_two_layers_and_other_numbers_of_states(verifier: Path) -> None:
    draft = made("eagle3", verifier, num_hidden_layers=2, target_layers=(0, 2, 4, 6))
    assert draft.state_dict()["fc.weight"].shape == (HIDDEN, 4 * HIDDEN)
    assert "layers.1.mlp.up_proj.weight" in draft.state_dict()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"num_local_experts": 8}, "tells no draft its intermediate_size: its layers are mixtures of experts"),
        ({"kv_lora_rank": 512}, "head_dim.*attention is compressed"),
        ({"rms_norm_eps": ...}, "tells no draft its rms_norm_eps$"),
        ({"intermediate_size": [1, 2]}, "tells no draft its intermediate_size$"),
        ({"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}}, "cannot rotate as this verifier"),
    ],
)
def test_what_the_verifier_does_not_tell_must_be_chosen(
    changes: dict[str, Any], words: str, changed: Callable[..., Path]
) -> None:
    verifier = changed(**changes)
    with pytest.raises(UsageError, match=words) as refused:
        made("eagle3", verifier)
    assert "--draft-config" in refused.value.hint
    sizes = {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 32}
    made("eagle3", verifier, intermediate_size=160, rms_norm_eps=1e-5, rope_theta=1e4, **sizes)


@pytest.mark.parametrize(
    ("kind", "choices", "vocabulary", "words"),
    [
        ("eagle3", {"draft_vocab_size": 100}, None, "needs the map of its tokens"),
        ("eagle3", {"draft_vocab_size": 50}, some_tokens(100), "draft_vocab_size is 50, and the map has 100"),
        ("eagle3", {"target_layers": (2, 5, 7)}, None, "has 6 layers: it has no such layers as 2,5,7"),
        ("eagle3", {"norm_before_fc": True, "fc_norm": True}, None, "exclude each other"),
        ("eagle3", {"num_attention_heads": 3, "num_key_value_heads": 2}, None, "the second must divide"),
        ("eagle3", {"rope_scaling": {"rope_type": "new"}}, None, "'new' is unknown"),
        ("eagle3-shared-head", {"hidden_size": 48}, None, "hidden_size is 48, and the head of"),
        ("eagle3-shared-head", {"draft_vocab_size": 100}, None, "draft_vocab_size is 100, and the verifier's head"),
        ("eagle3-shared-head", {}, some_tokens(), "know the verifier's whole vocabulary"),
        ("eagle", {}, some_tokens(), "know the verifier's whole vocabulary"),
        ("eagle", {"hidden_size": 48}, None, "hidden_size is 48"),
        ("eagle-mlp", {"hidden_size": 48}, None, "hidden_size is 48"),
        ("eagle-mlp", {"mlp_layers": 2, "num_hidden_layers": 3}, None, "mlp_layers is 2 and num_hidden_layers 3"),
    ],
)
def test_choices_that_do_not_fit_are_refused(
    kind: str, choices: dict[str, Any], vocabulary: Any, words: str, verifier: Path
) -> None:
    from spec_convert.errors import SpecConvertError

    with pytest.raises(SpecConvertError) as refused:
        made(kind, verifier, vocabulary, **choices)
    assert words in f"{refused.value.message}; {refused.value.hint}"


def test_three_usual_layers_need_a_deep_verifier(verifier: Path, changed: Callable[..., Path]) -> None:
    shallow = open_verifier(verifier)
    with pytest.raises(UsageError, match=r"too small for the usual layers \(2,3,3\)"):
        new_draft("eagle3", shallow, DraftShape(), vocabulary=None, seed=0)
    deep = open_verifier(changed(num_hidden_layers=12))
    draft: Any = new_draft("eagle3", deep, DraftShape(), vocabulary=None, seed=0)
    assert draft.config.eagle_aux_hidden_state_layer_ids == [2, 6, 9]


def other_map(change: str) -> tuple[torch.Tensor, torch.Tensor]:
    d2t, t2d = some_tokens()
    match change:
        case "another run's t2d":
            return d2t, some_tokens(seed=1)[1]
        case "a token twice":
            return torch.cat((d2t[:-1], d2t[:1] - 99)), t2d
        case "outside":
            return d2t + 600, t2d
        case "too short":
            return d2t, t2d[:-1]
        case "floats":
            return d2t.float(), t2d
        case _:
            return torch.zeros(VOCABULARY, dtype=torch.int64), torch.ones(VOCABULARY, dtype=torch.bool)


@pytest.mark.parametrize("change", ["another run's t2d", "a token twice", "outside", "too short", "floats", "whole"])
def test_a_map_that_does_not_fit_is_refused(change: str, verifier: Path) -> None:
    with pytest.raises(UsageError, match=r"vocabulary map|do not name the same part"):
        made("eagle3", verifier, other_map(change))


def test_an_unknown_kind_is_refused(verifier: Path) -> None:
    with pytest.raises(UsageError, match="no draft of kind `eagle4`"):
        new_draft("eagle4", open_verifier(verifier), DraftShape(), vocabulary=None, seed=0)
