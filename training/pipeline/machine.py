"""How fast this machine multiplies matrices: what rough estimates of time are made of."""

from __future__ import annotations

import time
from functools import cache

SIDE = 1024
ENOUGH = 0.3  # seconds


@cache
def flops() -> float:
    """Of products in float32 on a CPU, in bfloat16 on a GPU: operations a second."""
    import torch

    gpu = torch.cuda.is_available()
    device, dtype = ("cuda", torch.bfloat16) if gpu else ("cpu", torch.float32)
    side = SIDE * 8 if gpu else SIDE
    factor = torch.rand(side, side, device=device, dtype=dtype)

    def products(times: int) -> float:
        began = time.perf_counter()
        for _ in range(times):
            product = factor @ factor
        float(product[0, 0])  # waits for a GPU
        return time.perf_counter() - began

    products(1)  # warms up
    times, seconds = 1, products(1)
    while seconds < ENOUGH:
        times *= 2
        seconds = products(times)
    return 2 * side**3 * times / seconds
