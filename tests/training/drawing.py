"""Small drafts with random weights in float64, and packed batches, for tests of what training computes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import torch

from spec_convert.models.contract import Draft, VerifierTensors
from spec_convert.models.draft import build_draft
from spec_convert.models.eagle import EagleDraft
from spec_convert.models.eagle3 import Eagle3Draft
from spec_convert.models.mlp import MlpDraft
from spec_convert.training.batches.batch import Batch
from spec_convert.unified import UNIFIED

VOCABULARY, DRAFT_VOCABULARY, SIZE, STATES = 32, 20, 16, 3
LAYER = {
    "model_type": "llama", "hidden_size": SIZE, "intermediate_size": 24, "num_hidden_layers": 1,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 4, "vocab_size": VOCABULARY, "hidden_act": "silu",
    "rms_norm_eps": 1e-5, "max_position_embeddings": 64, "rope_theta": 10000.0, "rope_scaling": None,
    "attention_bias": False, "mlp_bias": False, "tie_word_embeddings": False,
}  # fmt: skip
METHOD = {"proposal_type": "greedy", "speculative_tokens": 3, "verifier_accept_k": 1, "accept_tolerance": 0.0}
ENVELOPE = {
    "architectures": ["Draft"], "speculators_version": "0.9.0", "tie_word_embeddings": False, "torch_dtype": "float32",
    "speculators_config": {
        "algorithm": "eagle", "default_proposal_method": "greedy", "proposal_methods": [METHOD],
        "verifier": {"name_or_path": "nobody/nothing", "architectures": ["LlamaForCausalLM"]},
    },
}  # fmt: skip
EAGLE = {
    "speculators_model_type": "eagle", "fusion_bias": True, "layernorms": False, "layernorm_position": None,
    "transformer_layer_architecture": "LlamaDecoderLayer", "transformer_layer_config": LAYER | {"qkv_bias": False},
}  # fmt: skip
EAGLE3 = {
    "speculators_model_type": "eagle3", "draft_vocab_size": DRAFT_VOCABULARY, "norm_before_residual": False,
    "norm_before_fc": False, "fc_norm": False, "norm_output": False, "target_hidden_size": None,
    "eagle_aux_hidden_state_layer_ids": [1, 2, 3], "embed_requires_grad": False,
    "transformer_layer_config": LAYER | {"num_aux_hidden_states": STATES},
}  # fmt: skip
MLP = {
    "speculators_model_type": "eagle_mlp", "hidden_size": SIZE, "vocab_size": VOCABULARY, "mlp_layers": 2,
    "hidden_act": "relu", "layer_norm_eps": 1e-5,
}  # fmt: skip


def drawn_verifier(seed: int = 1) -> VerifierTensors:
    random = torch.Generator().manual_seed(seed)
    tables = [torch.randn(VOCABULARY, SIZE, dtype=torch.float64, generator=random) for _ in range(2)]
    return VerifierTensors(embed_tokens=tables[0], lm_head=tables[1])


def drawn_draft(fields: dict[str, Any], *, layer: dict[str, Any] | None = None, seed: int = 0, **changes: Any) -> Draft:
    """A draft of `EAGLE`, `EAGLE3` or `MLP` with random float64 weights; its vocabulary is a random one."""
    whole = ENVELOPE | fields | changes
    if layer:
        whole |= {"transformer_layer_config": whole["transformer_layer_config"] | layer}
    config, verifier = UNIFIED.validate_python(whole), drawn_verifier()
    empty: dict[str, Any] = {
        "eagle": lambda: EagleDraft(config, embed_tokens=verifier.embed_tokens, lm_head=verifier.lm_head),
        "eagle3": lambda: Eagle3Draft(
            config,
            embed_tokens=verifier.embed_tokens,
            lm_head=verifier.lm_head if config.draft_vocab_size == VOCABULARY else None,
        ),
        "eagle_mlp": lambda: MlpDraft(config),
    }
    random = torch.Generator().manual_seed(seed)
    tensors = {
        name: torch.randn(tensor.shape, dtype=torch.float64, generator=random) * 0.3
        for name, tensor in empty[whole["speculators_model_type"]]().state_dict().items()
    }
    if "d2t" in tensors:
        said = torch.randperm(VOCABULARY, generator=random)[:DRAFT_VOCABULARY].sort().values
        tensors["d2t"] = said - torch.arange(DRAFT_VOCABULARY)
        tensors["t2d"] = torch.zeros(VOCABULARY, dtype=torch.bool).index_fill(0, said, True)
    return build_draft(config, tensors, verifier)


def drawn_batch(lengths: Sequence[int], *, width: int = STATES * SIZE, seed: int = 2, answers: float = 0.7) -> Batch:
    """Random documents end to end, of which some random tokens are learned."""
    random, total = torch.Generator().manual_seed(seed), sum(lengths)
    return Batch(
        input_ids=torch.randint(VOCABULARY, (total,), generator=random),
        loss_mask=torch.rand(total, generator=random) < answers,
        states=torch.randn(total, width, dtype=torch.float64, generator=random),
        final=torch.randn(total, SIZE, dtype=torch.float64, generator=random),
        bounds=tuple(accumulate(lengths, initial=0)),
    )


def document(batch: Batch, number: int) -> Batch:
    """One document of a batch as a batch of its own."""
    start, end = batch.bounds[number : number + 2]
    there = slice(start, end)
    return Batch(
        input_ids=batch.input_ids[there], loss_mask=batch.loss_mask[there], states=batch.states[there],
        final=batch.final[there], bounds=(0, end - start),
    )  # fmt: skip
