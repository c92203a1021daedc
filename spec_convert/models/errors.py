"""The error for a config and tensors that do not make a draft."""

from __future__ import annotations

from spec_convert.errors import Exit, SpecConvertError


class DraftError(SpecConvertError, ValueError):
    """What was read cannot be computed as it is: a missing tensor, a shape, a position scaling that nobody trained."""

    exit_code = Exit.FINDINGS
