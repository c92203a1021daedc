"""The GPU's attention of chains gives what the CPU's gives: here forward alone, on a GPU its gradients as well."""

from __future__ import annotations

import pytest
import torch

from spec_convert.training.unrolling.attention import Chains
from spec_convert.training.unrolling.flex import FlexChains

BOUNDS, HEADS, KV, WIDTH, STEPS = (0, 70, 71, 200), 4, 2, 16, 3
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU: flex_attention has no backward on a CPU")


def run(kind: type[Chains] | type[FlexChains], device: str, *, grad: bool) -> tuple[torch.Tensor, list[torch.Tensor]]:
    random = torch.Generator().manual_seed(0)
    leaves = [
        torch.randn(1, heads, BOUNDS[-1], WIDTH, generator=random).to(device).requires_grad_(grad)
        for _ in range(STEPS)
        for heads in (HEADS, KV, KV)
    ]
    attend = kind(BOUNDS, torch.arange(BOUNDS[-1], device=device))
    mixed = [attend(0, *leaves[3 * step : 3 * step + 3]) for step in range(STEPS)]
    total = torch.stack(mixed)
    return total, list(torch.autograd.grad(total.square().sum(), leaves)) if grad else []


# torch itself warns that flex_attention is slow without compiling, which takes longer than this whole file.
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile:UserWarning")
def test_it_computes_the_same_as_the_attention_in_tiles() -> None:
    with torch.no_grad():
        torch.testing.assert_close(run(FlexChains, "cpu", grad=False)[0], run(Chains, "cpu", grad=False)[0])


@needs_gpu
def test_so_does_a_gpu_with_its_gradients() -> None:
    mixed, gradients = run(FlexChains, "cuda", grad=True)
    expected, wanted = run(Chains, "cuda", grad=True)
    torch.testing.assert_close(mixed, expected, rtol=1e-3, atol=1e-3)
    for gradient, other in zip(gradients, wanted, strict=True):
        torch.testing.assert_close(gradient, other, rtol=1e-2, atol=1e-2)
