"""What is not converted because vLLM serves it as it lies is served by the very command that its refusal gives."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from spec_convert import detect

from .real_vllm import serve
from .tiny_pairs import VOCABULARY, write_verifier

pytestmark = [pytest.mark.long, pytest.mark.vllm]


def test_a_whole_model_drafts_for_another(tmp_path: Path) -> None:
    """Here for itself, so that every token is accepted."""
    verifier, draft = (write_verifier(tmp_path / name, "llama") for name in ("verifier", "draft"))
    detection = detect(draft)
    assert detection.format == "dense-draft"
    told = re.search(r"--speculative-config '(.*)'`", detection.features["instead"])
    assert told is not None

    served = serve(
        {"model": str(verifier), "speculative_config": json.loads(told[1]), "skip_tokenizer_init": True},
        prompts=[[number % VOCABULARY for number in range(7, 27)]],
        sampling={"temperature": 0.0, "max_tokens": 12, "ignore_eos": True, "detokenize": False},
    )

    assert served.acceptance_per_position == [1.0, 1.0, 1.0]
