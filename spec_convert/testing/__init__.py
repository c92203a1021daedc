"""For authors of formats: a tiny checkpoint of any format, and the contract that every format passes."""

from __future__ import annotations

from spec_convert.example import Example, Sizes, shapes_of
from spec_convert.testing.contract import FormatContract, RecognitionContract
from spec_convert.testing.tiny import tiny_checkpoint, tiny_verifier, write_example

__all__ = [
    "Example",
    "FormatContract",
    "RecognitionContract",
    "Sizes",
    "shapes_of",
    "tiny_checkpoint",
    "tiny_verifier",
    "write_example",
]
