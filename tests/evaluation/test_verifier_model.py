"""The verifier reads a text in pieces, takes back what was rejected, and gives the states that its draft wants."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from spec_convert.errors import UsageError
from spec_convert.evaluation.verifier_model import VerifierModel, load_verifier

from .conftest import llama

Reader = Callable[..., VerifierModel]
TEXT = torch.randint(0, 32, (12,), generator=torch.Generator().manual_seed(0)).tolist()


@torch.inference_mode()
def whole(reader: VerifierModel, text: list[int]) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Logits [T, V] and transformers' own hidden states of all boundaries, in one pass without a cache."""
    output = reader.model(torch.tensor([text]), output_hidden_states=True, use_cache=False)
    return output.logits[0], tuple(state[0] for state in output.hidden_states)


@pytest.mark.parametrize("cuts", [(12,), (5, 7), (1,) * 12, (6, 1, 4, 1)])
def test_a_text_in_pieces_gives_the_logits_of_the_whole(reader: Reader, cuts: tuple[int, ...]) -> None:
    model, done, logits = reader(), 0, []
    for tokens in cuts:
        logits.append(model.read(TEXT[done : done + tokens], keep=tokens).logits)
        done += tokens
    torch.testing.assert_close(torch.cat(logits), whole(model, TEXT)[0])


def test_what_is_taken_back_is_forgotten(reader: Reader) -> None:
    model = reader(["final"])
    model.read(TEXT[:5], keep=1)
    model.read([3, 1, 4], keep=3)
    model.take_back(3)
    model.take_back(0)
    seen = model.read(TEXT[5:], keep=7)
    logits, states = whole(model, TEXT)
    torch.testing.assert_close(seen.logits, logits[5:])
    torch.testing.assert_close(seen.states, states[-1][5:])


def test_a_new_text_begins_from_nothing(reader: Reader) -> None:
    model = reader()
    model.read([9, 9, 9], keep=1)
    model.restart()
    torch.testing.assert_close(model.read(TEXT, keep=12).logits, whole(model, TEXT)[0])


def test_the_head_is_computed_for_the_wanted_tokens_only(reader: Reader) -> None:
    model, rows = reader(), []
    model.model.lm_head.register_forward_hook(lambda _module, args, _made: rows.append(args[0].shape[1]))
    assert model.read(TEXT, keep=2).logits.shape == (2, 32)
    assert rows == [2]


@torch.inference_mode()
def test_an_eagle_draft_gets_the_state_after_the_final_norm(reader: Reader) -> None:
    model = reader(["final"])
    states = model.read(TEXT, keep=1).states
    logits, hidden = whole(model, TEXT)
    torch.testing.assert_close(states, hidden[-1])
    torch.testing.assert_close(model.model.lm_head(states), logits)


def test_an_eagle3_draft_gets_the_inputs_of_its_layers_side_by_side(reader: Reader) -> None:
    model = reader([0, 1, 3])
    _, hidden = whole(model, TEXT)
    torch.testing.assert_close(model.read(TEXT, keep=1).states, torch.cat([hidden[k] for k in (0, 1, 3)], dim=-1))


@torch.inference_mode()
def test_the_state_after_the_last_layer_is_the_one_before_the_final_norm(reader: Reader) -> None:
    model = reader([4])
    states = model.read(TEXT, keep=1).states
    _, hidden = whole(model, TEXT)
    torch.testing.assert_close(model.model.model.norm(states), hidden[-1])
    assert not torch.allclose(states, hidden[-1], atol=0.1)


def test_a_draft_that_wants_no_state_gets_rows_without_columns(reader: Reader) -> None:
    assert reader().read(TEXT, keep=1).states.shape == (12, 0)


def test_a_layer_that_the_verifier_does_not_have_is_refused(reader: Reader) -> None:
    with pytest.raises(UsageError, match="state 5, the verifier has 4 layers"):
        reader([1, 5])


def test_the_fresh_logits_leave_the_cache_alone(reader: Reader) -> None:
    model = reader(["final"])
    model.read(TEXT[:5], keep=1)
    torch.testing.assert_close(model.logits_after(TEXT[:9]), whole(model, TEXT[:9])[0][-1])
    torch.testing.assert_close(model.read(TEXT[5:], keep=1).logits[0], whole(model, TEXT)[0][-1])


def test_a_sliding_window_does_not_stand_in_the_way_of_taking_back() -> None:
    from transformers import MistralConfig, MistralForCausalLM

    torch.manual_seed(0)
    config = MistralConfig(
        hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1,
        vocab_size=32, sliding_window=4,
    )  # fmt: skip
    model = VerifierModel(MistralForCausalLM(config))
    model.read(TEXT[:8], keep=1)
    model.read([3, 1, 4], keep=3)
    model.take_back(3)
    torch.testing.assert_close(model.read(TEXT[8:], keep=4).logits, whole(model, TEXT)[0][8:])


def test_layers_are_found_under_another_name() -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(n_embd=16, n_layer=3, n_head=2, vocab_size=32, bos_token_id=0, eos_token_id=0)
    model = VerifierModel(GPT2LMHeadModel(config), [1, 2])
    hidden = whole(model, TEXT)[1]
    torch.testing.assert_close(model.read(TEXT, keep=1).states, torch.cat((hidden[1], hidden[2]), dim=-1))


def test_a_model_whose_state_cannot_be_taken_back_is_refused() -> None:
    from transformers import MambaConfig, MambaForCausalLM

    config = MambaConfig(hidden_size=16, num_hidden_layers=2, vocab_size=32, state_size=4)
    with pytest.raises(UsageError, match="without a key/value cache"):
        VerifierModel(MambaForCausalLM(config))


@pytest.mark.parametrize(("said", "ends"), [(None, set()), (2, {2}), ([2, 7], {2, 7})])
def test_answers_end_where_the_generation_config_says(said: int | list[int] | None, ends: set[int]) -> None:
    model = llama(1)
    model.generation_config.eos_token_id = said
    assert VerifierModel(model).end_ids == ends


def test_a_folder_that_transformers_cannot_load_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "nothing-known"}')
    with pytest.raises(UsageError, match="cannot load"):
        load_verifier(str(tmp_path), SimpleNamespace(), revision=None, dtype="float32", device="cpu")


def test_a_verifier_with_missing_weights_is_refused_and_not_filled_with_random_ones(
    make_verifier: Callable[..., Path],
) -> None:
    """The folder holds an embedding and a head only."""
    with pytest.raises(UsageError, match=r"weights of .* are not there, the first model.layers.0"):
        load_verifier(str(make_verifier("part")), SimpleNamespace(), revision=None, dtype="float32", device="cpu")
