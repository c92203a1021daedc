"""Holds what vLLM's drafter computed, row by row, to the reference draft and to the verifier in transformers."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from spec_convert import load_draft
from spec_convert.models.cache import Cache

from .real_vllm import serve

PROMPT = [3, 7, 11, 5, 400, 7, 90, 211, 5, 13, 307, 42]
NEW_TOKENS = 14
# Of the largest value, in float32: vLLM sums in another order (2e-6 was seen).
TOLERANCE = 1e-5


@dataclass(frozen=True, kw_only=True)
class Call:
    """One call of the draft in vLLM."""

    input_ids: Tensor  # [T]
    positions: Tensor  # [T]
    logits: Tensor  # [T, V], over the verifier's vocabulary
    fed_back: Tensor  # [T, H]


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """What one verifier pass led to: a call over its rows, then calls of one row each."""

    states: Tensor  # [T, …], the verifier's
    places: Tensor  # [T], where they stand
    drafted: Tensor  # [K]
    calls: list[Call]


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """A short answer of vLLM with every step of its drafting."""

    text: list[int]  # prompt and answer
    accepted_per_position: list[int]
    proposals: list[Proposal]


def serve_recorded(llm: Mapping[str, Any], verifier: Path, *, draft_tensors: Path | None = None) -> Recorded:
    """Continues `PROMPT` in float32. ``llm``: which draft, and how it is named, see `real_vllm`."""
    with tempfile.TemporaryDirectory() as folder:
        record = Path(folder) / "record.safetensors"
        served = serve(
            {**llm, "dtype": "float32", "max_model_len": 64, "skip_tokenizer_init": True},
            prompts=[PROMPT],
            sampling={"temperature": 0, "max_tokens": NEW_TOKENS, "ignore_eos": True, "detokenize": False},
            draft_tensors=draft_tensors,
            record=record,
            text=greedy_text(verifier),
        )
        return Recorded(
            text=PROMPT + served.token_ids[0],
            accepted_per_position=served.accepted_per_position,
            proposals=_read(load_file(record)),
        )


def _read(held: dict[str, Tensor]) -> list[Proposal]:
    calls: dict[int, list[Call]] = {}
    for proposal, number in sorted({tuple(map(int, name.split(".")[:2])) for name in held if name.count(".") == 2}):
        parts = {part: held[f"{proposal}.{number}.{part}"] for part in Call.__annotations__}
        calls.setdefault(proposal, []).append(Call(**parts))
    return [
        Proposal(
            states=held[f"{number}.states"],
            places=held[f"{number}.places"],
            drafted=held[f"{number}.drafted"],
            calls=made,
        )
        for number, made in sorted(calls.items())
    ]


def assert_same_function(served: Recorded, output: Path, verifier: Path) -> None:
    """The text is the verifier's own; states, logits and drafted tokens are those of verifier and draft in torch."""
    assert served.text == greedy_text(verifier)
    assert min(served.accepted_per_position) > 0  # see `recorder`: otherwise accepted rows would not be compared
    assert_states_are_the_verifiers(served, output, verifier)
    assert_drafts_alike(served.proposals, output)


@torch.no_grad()
def assert_drafts_alike(proposals: list[Proposal], output: Path) -> None:
    """The reference draft of the unified directory, led through the same rows, gives the same logits and states."""
    draft, cache = load_draft(output), Cache()
    for proposal in proposals:
        states = proposal.states
        for number, call in enumerate(proposal.calls):
            cache.crop(int(call.positions[0]))  # rows from there on were guesses that did not come true
            rows = call.input_ids.long()[None], states[None], call.positions[None]
            ours = draft(*rows, fed_back=number > 0, attend=cache)
            logits = draft.to_target_vocabulary(ours.logits)[0]
            assert_close(call.logits, logits)
            assert_close(call.fed_back, ours.hidden_states[0])
            last = _sampled(proposal, number)
            assert proposal.drafted[number] == logits[last].argmax()
            states = ours.hidden_states[0, last][None]


def _sampled(proposal: Proposal, number: int) -> int:
    """The row of this call whose token was drafted: the next call stands one position further."""
    rows = proposal.calls[number].positions
    if len(rows) == 1:
        return 0
    return int((rows == proposal.calls[number + 1].positions[0] - 1).nonzero())


@torch.no_grad()
def assert_states_are_the_verifiers(served: Recorded, output: Path, verifier: Path) -> None:
    """The draft is given the states that its config asks for, as transformers computes them."""
    config = json.loads((output / "config.json").read_text())
    seen = load_verifier(verifier)(torch.tensor([served.text]), output_hidden_states=True).hidden_states
    # EAGLE-1 takes the last one, behind the final norm.
    expected = torch.cat([seen[layer][0] for layer in config.get("eagle_aux_hidden_state_layer_ids", [-1])], dim=-1)
    given = dict[int, Tensor]()
    for proposal in served.proposals:  # what was computed for a rejected token is written over by the next proposal
        given |= zip(proposal.calls[0].positions.tolist(), proposal.states, strict=True)
    known = range(len(served.text) - 1)  # nobody needs the state of the last token
    assert_close(torch.stack([given[position] for position in known]), expected[: len(known)])


@torch.no_grad()
def greedy_text(verifier: Path) -> list[int]:
    """`PROMPT` and the verifier's own answer, without any draft."""
    model, text = load_verifier(verifier), list(PROMPT)
    for _ in range(NEW_TOKENS):
        text.append(int(model(torch.tensor([text])).logits[0, -1].argmax()))
    return text


def load_verifier(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def assert_close(theirs: Tensor, ours: Tensor) -> None:
    assert torch.equal(theirs.isinf(), ours.isinf())
    theirs, ours = (tensor.nan_to_num(neginf=0) for tensor in (theirs, ours))
    assert (theirs - ours).abs().max() <= TOLERANCE * ours.abs().max()
