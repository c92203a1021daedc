"""What every unified config holds: its dtype is that of the weights, and a format says what else is no weight."""

from __future__ import annotations

from typing import Any

import pytest

from spec_convert.envelope import VOCABULARY_MAPS, envelope
from spec_convert.errors import Refused
from spec_convert.facts import Facts
from spec_convert.formats import Draft, Request
from spec_convert.mapping import apply
from spec_convert.open import open_checkpoint
from spec_convert.tensor import Tensor
from spec_convert.tensor_map import TensorMap, keep

DTYPES = {"large": "BF16", "other": "BF16", "small": "F32", "codes": "I64"}
TABLE = TensorMap(*(keep(name, shape="vocabulary") for name in DTYPES))


@pytest.fixture
def draft(eagle: Any) -> Draft:
    """A draft that holds whole numbers which are no vocabulary map."""
    tensors = {name: Tensor(name=name, dtype=dtype, shape=(4,), file="", start=0) for name, dtype in DTYPES.items()}
    checkpoint = open_checkpoint(eagle().write())
    return Draft(checkpoint=checkpoint, request=Request(), mapped=apply(TABLE, tensors, {}))


def asked(draft: Draft, **besides: Any) -> tuple[dict[str, Any], list[Any]]:
    facts = Facts.of(draft.checkpoint)
    return envelope(draft, facts, model_type="codebook", architecture="CodebookModel", width=16, **besides)


def test_a_tensor_of_whole_numbers_is_refused_as_a_quantised_weight(draft: Draft) -> None:
    with pytest.raises(Refused, match="codes: is I64, no float"):
        asked(draft)


def test_unless_the_format_says_that_it_is_no_weight(draft: Draft) -> None:
    config, findings = asked(draft, besides=(*VOCABULARY_MAPS, "codes"))
    assert config["torch_dtype"] == "bfloat16"
    (mixed,) = [finding for finding in findings if finding.rule == "mixed-dtypes"]
    assert mixed.message == "most weights are bfloat16, but float32: small"
