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


# Every token is accepted of a model that drafts for itself; in parallel, the first one, which sees no mask.
KINDS: dict[str, tuple[dict[str, int], int]] = {"dense-draft": ({}, 3), "pard": ({"pard_token": VOCABULARY - 1}, 1)}


@pytest.mark.parametrize("name", KINDS)
def test_a_whole_model_drafts_for_another(name: str, tmp_path: Path) -> None:
    more, sure = KINDS[name]
    verifier, draft = (write_verifier(tmp_path / folder, "llama") for folder in ("verifier", "draft"))
    config = draft / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | more))
    detection = detect(draft)
    assert detection.format == name
    told = re.search(r"--speculative-config '(.*)'`", detection.features["instead"])
    assert told is not None

    served = serve(
        {"model": str(verifier), "speculative_config": json.loads(told[1]), "skip_tokenizer_init": True},
        prompts=[list(range(7, 27))],
        sampling={"temperature": 0.0, "max_tokens": 12, "ignore_eos": True, "detokenize": False},
    )

    assert served.acceptance_per_position[:sure] == [1.0] * sure
