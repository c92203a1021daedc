"""A small verifier that tests of the training share: six Llama layers, a byte-level tokenizer, a ChatML template."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from spec_convert.training.store.manifest import LayerFacts, Manifest, TokenizerFacts
from spec_convert.training.store.reading import Store, open_store
from spec_convert.training.store.sample import Sample
from spec_convert.training.store.writing import writing
from spec_convert.training.tokenizer import facts_of, open_tokenizer
from spec_convert.verifier import open_verifier

LAYERS, HIDDEN, VOCABULARY = 6, 64, 512
SPECIAL = ("<|im_start|>", "<|im_end|>", "<|endoftext|>")
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def byte_tokenizer(special: Sequence[str] = SPECIAL, *, end: str = "<|im_end|>", template: str | None = CHATML) -> Any:
    """Every byte is a token, and every special word; nothing is merged, so token ranges can be counted by hand."""
    from tokenizers import AddedToken, Tokenizer
    from tokenizers.decoders import ByteLevel as Decoder
    from tokenizers.models import BPE
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import PreTrainedTokenizerFast

    letters = sorted(ByteLevel.alphabet())
    tokenizer = Tokenizer(BPE({letter: number for number, letter in enumerate(letters)}, []))
    tokenizer.pre_tokenizer, tokenizer.decoder = ByteLevel(add_prefix_space=False), Decoder()
    tokenizer.add_special_tokens([AddedToken(word, special=True, normalized=False) for word in special])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=end)
    fast.chat_template = template
    return fast


def write_verifier(folder: Path, *, layers: int = LAYERS) -> Path:
    """Head size 32, which vLLM has CPU kernels for. The final norm's weights are far from one, so that it is seen."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        hidden_size=HIDDEN, intermediate_size=160, num_hidden_layers=layers, num_attention_heads=2,
        num_key_value_heads=1, head_dim=32, vocab_size=VOCABULARY, max_position_embeddings=1024,
        initializer_range=0.2, tie_word_embeddings=False, bos_token_id=None, eos_token_id=257,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = LlamaForCausalLM(config)
        torch.nn.init.uniform_(model.model.norm.weight, 0.5, 3.0)
    model.save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder


def write_prepared(folder: Path, verifier: Path, samples: Sequence[Sample], *, per_shard: int = 1000) -> Store:
    """What `prepare` would write of these samples."""
    opened = open_verifier(verifier)
    shards = [samples[first : first + per_shard] for first in range(0, len(samples), per_shard)]
    manifest = Manifest(
        kind="prepared", request={"made_by": "a test"}, tokenizer=facts_of(open_tokenizer(opened), opened),
        made_with={}, counts={"samples": len(samples)}, planned_shards=len(shards),
    )  # fmt: skip
    with writing(folder, manifest) as writer:
        for number, some in enumerate(shards):
            writer.write(number, some)
    return open_store(folder)


def write_states(folder: Path, samples: Sequence[Sample]) -> Store:
    """What `generate` would write of these samples: here the states are numbers that tell the tokens apart."""
    layers = LayerFacts(ids=(1, LAYERS), num_hidden_layers=LAYERS, hidden_size=HIDDEN, dtype="float32")
    manifest = Manifest(
        kind="hidden_states", request={"made_by": "a test"}, layers=layers, made_with={}, counts={}, planned_shards=1,
        tokenizer=TokenizerFacts(name="a model", fingerprint="0" * 64, vocab_size=VOCABULARY),
    )  # fmt: skip
    with writing(folder, manifest) as writer:
        states = [sample.input_ids[:, None, None].float().expand(-1, 2, HIDDEN).clone() for sample in samples]
        pairs = zip(samples, states, strict=True)
        writer.write(0, [replace(sample, hidden_states=state) for sample, state in pairs])
    return open_store(folder)


def random_samples(lengths: Sequence[int], *, vocabulary: int = 256, seed: int = 0) -> list[Sample]:
    """Random tokens; the second half of each sample is its answer."""
    generator = torch.Generator().manual_seed(seed)
    return [
        Sample(
            index=index,
            input_ids=torch.randint(vocabulary, (length,), generator=generator),
            loss_mask=torch.arange(length) >= length // 2,
        )
        for index, length in enumerate(lengths)
    ]
