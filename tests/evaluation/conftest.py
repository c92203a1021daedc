"""A tiny verifier that really decodes, for the drafts that `tests/conftest.py` makes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from ..conftest import SIZES

if TYPE_CHECKING:
    from spec_convert.evaluation.verifier_model import VerifierModel

TEMPLATE = (
    "{% for message in messages %}t1 {{ message['role'] }} {{ message['content'] }} {% endfor %}"
    "{% if add_generation_prompt %}t1 assistant {% endif %}"
)


@pytest.fixture
def verifier(tmp_path: Path) -> Path:
    """An eight-layer Llama with random weights, as transformers writes it, and without a tokenizer."""
    folder = tmp_path / "verifier"
    llama(8).save_pretrained(folder)
    return folder


@pytest.fixture
def with_tokenizer(verifier: Path) -> Callable[..., Path]:
    """The verifier with a tokenizer of the words `t0` to `t28`, `user`, `assistant` and `system`."""

    def add(template: str | None = TEMPLATE, *, end: int = 2) -> Path:
        from tokenizers import Tokenizer
        from tokenizers.models import WordLevel
        from tokenizers.pre_tokenizers import WhitespaceSplit
        from transformers import PreTrainedTokenizerFast

        words = [*(f"t{number}" for number in range(29)), "user", "assistant", "system"]
        tokenizer = Tokenizer(WordLevel({word: number for number, word in enumerate(words)}, unk_token="t0"))
        tokenizer.pre_tokenizer = WhitespaceSplit()
        fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="t0", eos_token=words[end])
        fast.chat_template = template
        fast.save_pretrained(verifier)
        return verifier

    return add


@pytest.fixture
def reader() -> Callable[..., VerifierModel]:
    """`reader(wanted, layers=4)`: a verifier in memory, of which a draft wants these states."""
    from spec_convert.evaluation.verifier_model import VerifierModel

    return lambda wanted=(), layers=4, **changes: VerifierModel(llama(layers, **changes), wanted)


def llama(layers: int, **changes: Any) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {
        "hidden_size": SIZES.hidden, "intermediate_size": SIZES.inner, "num_attention_heads": SIZES.heads,
        "num_key_value_heads": SIZES.kv_heads, "head_dim": SIZES.head_dim, "vocab_size": SIZES.vocabulary,
    }  # fmt: skip
    # Weights ten times as large as usual: otherwise a random model says the same token for ever.
    constants = {"num_hidden_layers": layers, "initializer_range": 0.3, "eos_token_id": None, "bos_token_id": None}
    with torch.random.fork_rng():
        torch.manual_seed(5)
        return LlamaForCausalLM(LlamaConfig(**sizes | constants | {"tie_word_embeddings": False} | changes)).eval()
