"""When two greedy answers part: is it a numerical tie, which the order of additions decides, or a real difference?"""

from __future__ import annotations

# How far apart, relative to their size, two logits may be that the same model gives to the same text when it computes
# it in batches of another shape. bfloat16 and float16: 4 units in the last place, since sums are kept in float32 and
# only their results are rounded; float32: 128 units, since there every sum is rounded. Seen on SmolLM2-135M, between
# passes over 1, 4 and all tokens: at most 2.4, 2.4 and 14 units.
BOUNDS = {"bfloat16": 2.0**-5, "float16": 2.0**-8, "float32": 2.0**-16, "float64": 2.0**-45}


def is_tie(first: float, second: float, dtype: str) -> bool:
    """Whether two logits of one position are equal to within the rounding of ``dtype``, or absolute below 1."""
    return abs(first - second) <= BOUNDS[dtype] * max(abs(first), abs(second), 1.0)
