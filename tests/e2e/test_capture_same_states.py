"""A real model, every boundary: vLLM and transformers see the same states, in batches, packed rows and pieces."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from spec_convert.training.capture.final_norm import final_norm
from spec_convert.training.capture.transformers_engine import open_transformers_engine
from spec_convert.training.capture.vllm_engine import open_vllm_engine
from spec_convert.verifier import Verifier, open_verifier

pytestmark = [pytest.mark.vllm, pytest.mark.long]

TEXT = (
    "Marion and Ella took an exam of forty questions. Ella got four of them wrong, and Marion six more than half of "
    "what Ella got right. def score(right: int) -> int:\n    return right // 2 + 6\n\nThe answer is 24. "
)
LENGTHS = [[1, 2, 3, 400], [127, 128, 129], [15, 16, 17, 64, 250]]
Captured = list[list[Tensor]]


@pytest.fixture(scope="module")
def verifier(smollm2: Path) -> Verifier:
    return open_verifier(smollm2)


@pytest.fixture(scope="module")
def chunks(smollm2: Path) -> list[list[list[int]]]:
    """Texts of these lengths, each from another place of the same one."""
    from transformers import AutoTokenizer

    tokens: list[int] = AutoTokenizer.from_pretrained(smollm2)(TEXT * 20)["input_ids"]
    starts = iter(range(0, 200, 7))
    return [[tokens[start : start + length] for length, start in zip(some, starts, strict=False)] for some in LENGTHS]


@pytest.fixture(scope="module")
def captured(
    verifier: Verifier, chunks: list[list[list[int]]], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Captured]:
    """By every engine, the states of every boundary, in float32."""
    layers = tuple(range(verifier.num_hidden_layers + 1))
    same: dict[str, Any] = {"dtype": "float32", "compute_dtype": "float32"}
    taken: dict[str, Captured] = {}
    for batching in ("padded", "packed"):
        with open_transformers_engine(
            verifier, layers, **same, batching=batching, batch_tokens=512, device="cpu"
        ) as engine:
            taken[f"transformers, {batching}"] = list(engine.capture(iter(chunks)))
    pieces = {"max_num_batched_tokens": 128, "max_num_seqs": 4}
    for name, limits in {"vllm": {}, "vllm, in pieces": pieces}.items():
        with open_vllm_engine(
            verifier, layers, **same, scratch=tmp_path_factory.mktemp("scratch"), tensor_parallel_size=None,
            llm_args=limits, verbose=False, longest=max(map(max, LENGTHS)),
        ) as engine:  # fmt: skip
            taken[name] = list(engine.capture(iter(chunks)))
    return taken


def apart(one: Tensor, other: Tensor) -> float:
    """The largest relative difference of any layer; states [T, L, H]."""
    return float(((one - other).norm(dim=(0, 2)) / other.norm(dim=(0, 2))).max())


def test_every_engine_sees_the_same_states_at_every_boundary(
    captured: dict[str, Captured], chunks: list[list[list[int]]], verifier: Verifier
) -> None:
    worst = {}
    for one, other in combinations(captured, 2):
        differences = [
            apart(ours, theirs)
            for some, others in zip(captured[one], captured[other], strict=True)
            for ours, theirs in zip(some, others, strict=True)
        ]
        worst[f"{one} and {other}"] = max(differences)
    print(worst)
    assert [[state.shape[:2] for state in states] for states in captured["vllm"]] == [
        [(length, verifier.num_hidden_layers + 1) for length in some] for some in LENGTHS
    ]
    assert max(worst.values()) < 1e-4


def test_the_last_state_is_the_one_before_the_final_norm(
    captured: dict[str, Captured], chunks: list[list[list[int]]], verifier: Verifier
) -> None:
    """With the norm it is what the verifier's own head is fed."""
    from transformers import AutoModelForCausalLM

    decoder = AutoModelForCausalLM.from_pretrained(verifier.name, dtype=torch.float32).model.eval()
    norm = final_norm(verifier)
    for chunk, states in zip(chunks, captured["vllm"], strict=True):
        for ids, state in zip(chunk, states, strict=True):
            with torch.inference_mode():
                [fed] = decoder(input_ids=torch.tensor([ids])).last_hidden_state
            assert apart(norm(state[:, -1])[:, None], fed[:, None]) < 1e-4
            assert apart(state[:, -1:], fed[:, None]) > 0.1
