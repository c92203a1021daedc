"""A stock vLLM drafts with a unified P-EAGLE directory, all tokens in one pass, as the reference draft does."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from spec_convert import load_draft
from spec_convert.models.cache import Cache
from spec_convert.models.peagle import PEagleDraft

from .conftest import Convert
from .real_vllm import unified
from .same_function import Proposal, Recorded, assert_close, greedy_text, load_verifier, serve_recorded
from .tiny_pairs import (
    SIZES,
    VOCABULARY,
    Case,
    nemo,
    random,
    specforge_peagle,
    unified_peagle,
    with_mask,
    write_verifier,
)

pytestmark = [pytest.mark.long, pytest.mark.vllm]

TOKENS = 3
LAYERS = SIZES.eagle3("layers.0.", layers=2)
QK_NORMS = random({
    f"layers.{number}.self_attn.{norm}.weight": (SIZES.head_dim,) for number in (0, 1) for norm in ("q_norm", "k_norm")
})  # fmt: skip
CASES = {
    "Llama layers": unified_peagle(LAYERS),
    "Llama layers, norm before fc": unified_peagle(
        LAYERS | random({"input_norm.weight": (3 * SIZES.hidden,)}), norm_before_fc=True, norm_before_residual=True
    ),
    "Qwen3 layers": unified_peagle(LAYERS | QK_NORMS, verifier="qwen3"),
    "SpecForge's": specforge_peagle(LAYERS, num_hidden_layers=2),
    "NeMo's": nemo(
        with_mask(LAYERS), parallel_drafting=True, mask_token_id=VOCABULARY - 1, num_hidden_layers=2, num_depths=8
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_vllm_drafts_in_parallel_what_the_reference_draft_drafts(name: str, convert: Convert, tmp_path: Path) -> None:
    case = with_layers(CASES[name], 2)
    verifier = write_verifier(tmp_path / "verifier", case.verifier)
    output = convert(
        case.write(tmp_path / "draft"), verifier=verifier, flags=("--speculative-tokens", str(TOKENS), "--validate")
    )

    served = serve_recorded(unified(output), verifier)

    assert served.text == greedy_text(verifier)
    assert min(served.accepted_per_position) > 0  # otherwise rows of accepted tokens would not be compared
    assert_states_are_the_verifiers(served, output, verifier)
    assert_drafts_alike(served.proposals, output)


def with_layers(case: Case, layers: int) -> Case:
    if "transformer_layer_config" not in case.config:
        return case
    layer = case.config["transformer_layer_config"] | {"num_hidden_layers": layers}
    if case.verifier == "qwen3":
        layer |= {"model_type": "qwen3"}
    return replace(case, config={**case.config, "transformer_layer_config": layer})


@torch.no_grad()
def assert_drafts_alike(proposals: list[Proposal], output: Path) -> None:
    """One call a proposal: rows that the verifier has read, then masked ones; every one is compared."""
    draft, cache = load_draft(output), Cache()
    assert isinstance(draft, PEagleDraft)
    for proposal in proposals:
        (call,) = proposal.calls
        read, masked = rows_of(proposal)
        assert call.input_ids[masked].tolist() == [draft.mask_token_id] * (TOKENS - 1)
        cache.crop(int(call.positions[0]))
        first = draft(
            call.input_ids[read].long()[None], proposal.states[read][None], call.positions[read][None],
            fed_back=False, attend=cache,
        )  # fmt: skip
        nothing = first.hidden_states.new_zeros(1, TOKENS - 1, SIZES.hidden)
        rest = draft(call.input_ids[masked][None], nothing, call.positions[masked][None], fed_back=True, attend=cache)
        logits = draft.to_target_vocabulary(torch.cat((first.logits, rest.logits), dim=1))[0]
        states = torch.cat((first.hidden_states, rest.hidden_states), dim=1)[0]
        assert_close(call.logits[: masked.stop], logits)
        assert_close(call.fed_back[: masked.stop], states)
        assert torch.equal(proposal.drafted, logits[-TOKENS:].argmax(dim=-1))


def rows_of(proposal: Proposal) -> tuple[slice, slice]:
    """The rows that the verifier has read, and the masked ones. Behind them vLLM keeps those of rejected tokens."""
    end = int(proposal.calls[0].positions.argmax()) + 1
    return slice(0, end - TOKENS + 1), slice(end - TOKENS + 1, end)


@torch.no_grad()
def assert_states_are_the_verifiers(served: Recorded, output: Path, verifier: Path) -> None:
    """As `same_function` does, but for where the states of rejected tokens lie."""
    ids = json.loads((output / "config.json").read_text())["eagle_aux_hidden_state_layer_ids"]
    seen = load_verifier(verifier)(torch.tensor([served.text]), output_hidden_states=True).hidden_states
    expected = torch.cat([seen[layer][0] for layer in ids], dim=-1)
    given = dict[int, Tensor]()
    for proposal in served.proposals:
        read, _ = rows_of(proposal)
        given |= zip(proposal.calls[0].positions[read].tolist(), proposal.states[read], strict=True)
    known = range(len(served.text) - 1)
    assert_close(torch.stack([given[position] for position in known]), expected[: len(known)])
