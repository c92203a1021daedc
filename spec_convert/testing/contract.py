"""What every format must keep, as tests: make a subclass that names one, and pytest runs them on its example.

    class TestPigLatin(FormatContract):
        format = "pig-latin"

Each failure says what is wrong with the format and what its author can do about it.
"""

from __future__ import annotations

from spec_convert.testing.conversions import Conversions
from spec_convert.testing.damage import Damage
from spec_convert.testing.descriptions import Descriptions, Recognition, Refusals


class FormatContract(Descriptions, Conversions, Damage):
    """The contract of the format ``format``, which must be installed and have an `example`."""


class RecognitionContract(Recognition, Refusals):
    """The contract of a format that is recognised and not converted (`unconverted`)."""
