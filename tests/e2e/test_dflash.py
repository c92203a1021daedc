"""A stock vLLM fills blocks with a converted DFlash draft, all guesses in one pass, as the reference draft does.

The norms on the keys are the same in both layers: vLLM 0.32 norms the keys of its context for all layers at once, and
its kernel for the CPU takes the weight of the first layer for all of them.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from spec_convert import load_draft
from spec_convert.models.cache import Cache
from spec_convert.models.dflash import DFlashDraft

from ..tiny import random, renamed
from .conftest import Convert
from .real_vllm import unified
from .same_function import Proposal, Recorded, assert_close, greedy_text, load_verifier, serve_recorded
from .tiny_pairs import KNOWN, SIZES, dflash, write_verifier

pytestmark = [pytest.mark.long, pytest.mark.vllm]

TOKENS = 3
TENSORS = SIZES.dflash(layers=2)
TENSORS["layers.1.self_attn.k_norm.weight"] = TENSORS["layers.0.self_attn.k_norm.weight"].clone()
BIASES = {
    name: tensor
    for number in (0, 1)
    for name, tensor in (
        SIZES.qkv_bias(f"layers.{number}.") | random({f"layers.{number}.self_attn.o_proj.bias": (SIZES.hidden,)})
    ).items()
}
SLIDING = {"layer_types": ["sliding_attention"] * 2, "sliding_window": 6, "use_sliding_window": True}
TORCHSPEC = renamed(
    renamed(renamed(TENSORS, "fc.", "context_proj."), "hidden_norm.", "context_norm."), "norm.", "final_norm."
)
CASES = {
    "full layers": dflash(TENSORS),
    "sliding layers that see what is before them": dflash(TENSORS, **SLIDING),
    "sliding layers that see the whole block": dflash(TENSORS, **SLIDING, is_causal=False),
    "biases of the attention": dflash(TENSORS | BIASES, attention_bias=True),
    "TorchSpec's names, own embedding": dflash(TORCHSPEC | SIZES.embedding()),
    "a vocabulary of its own": dflash(TENSORS | SIZES.reduced_head(KNOWN), draft_vocab_size=len(KNOWN)),
}


@pytest.mark.parametrize("name", CASES)
def test_vllm_fills_blocks_as_the_reference_draft_does(name: str, convert: Convert, tmp_path: Path) -> None:
    case = CASES[name]
    verifier = write_verifier(tmp_path / "verifier", case.verifier)
    output = convert(case.write(tmp_path / "draft"), verifier=verifier, flags=("--validate",))

    served = serve_recorded(unified(output), verifier)

    assert served.text == greedy_text(verifier)
    assert min(served.accepted_per_position) > 0  # otherwise states of accepted guesses would not be compared
    assert_states_are_the_verifiers(served, output, verifier)
    assert_blocks_are_filled_alike(served.proposals, output)


@torch.no_grad()
def assert_blocks_are_filled_alike(proposals: list[Proposal], output: Path) -> None:
    draft, cache = load_draft(output), Cache()
    assert isinstance(draft, DFlashDraft)
    for proposal in proposals:
        (call,) = proposal.calls
        newest, *masks = call.input_ids.tolist()
        assert masks == [draft.config.mask_token_id] * TOKENS
        read = slice(0, rows_read(proposal))
        cache.crop(int(proposal.places[0]))
        ids = torch.full((1, read.stop), newest)
        made = draft(ids, proposal.states[read][None], proposal.places[read][None], fed_back=False, attend=cache)
        logits = [made.logits[0, -1]]
        for _ in range(TOKENS - 1):
            made = draft(ids, made.hidden_states, fed_back=True)
            logits.append(made.logits[0, -1])
        ours = draft.to_target_vocabulary(torch.stack(logits))
        assert_close(call.logits[1:], ours)
        assert torch.equal(proposal.drafted, ours.argmax(dim=-1))


def rows_read(proposal: Proposal) -> int:
    """How many states belong to accepted tokens: those of rejected ones lie behind them."""
    return int((proposal.places < proposal.calls[0].positions[0]).sum())


@torch.no_grad()
def assert_states_are_the_verifiers(served: Recorded, output: Path, verifier: Path) -> None:
    """The draft is given the states that its config asks for, as transformers computes them."""
    ids = json.loads((output / "config.json").read_text())["aux_hidden_state_layer_ids"]
    seen = load_verifier(verifier)(torch.tensor([served.text]), output_hidden_states=True).hidden_states
    expected = torch.cat([seen[layer][0] for layer in ids], dim=-1)
    given = dict[int, Tensor]()
    for proposal in served.proposals:
        read = rows_read(proposal)
        given |= zip(proposal.places[:read].tolist(), proposal.states[:read], strict=True)
    known = range(len(served.text) - 1)
    assert_close(torch.stack([given[position] for position in known]), expected[: len(known)])
