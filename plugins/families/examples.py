"""Configs and vocabularies of tiny checkpoints as their trainers write them: what the formats' examples are made of."""

from __future__ import annotations

from typing import Any

from spec_convert.example import Example, Sizes, shapes_of
from spec_convert.plugins.families import eagle1, eagle3
from spec_convert.tensor_map import TensorMap

EMBEDDING = "embed_tokens.weight"
STATES = 3  # of the verifier, that EAGLE-3 fuses
FIRST_LAYER_AS_LAYER_0 = eagle3.FIRST_LAYER.under("layers.0.")


def authors_config(sizes: Sizes, **more: Any) -> dict[str, Any]:
    """config.json as SafeAILab's trainer copies it from an old Llama's: it does not say the head size."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "bos_token_id": 1,
        "eos_token_id": 2,
        "hidden_act": "silu",
        "hidden_size": sizes.hidden,
        "initializer_range": 0.02,
        "intermediate_size": sizes.inner,
        "max_position_embeddings": 2048,
        "model_type": "llama",
        "num_attention_heads": sizes.heads,
        "num_key_value_heads": sizes.kv_heads,
        "num_hidden_layers": sizes.layers,
        "pad_token_id": 0,
        "rms_norm_eps": 1e-05,
        "tie_word_embeddings": False,
        "transformers_version": "4.28.1",
        "use_cache": True,
        "vocab_size": sizes.vocabulary,
    } | more


def transformers_config(sizes: Sizes, **more: Any) -> dict[str, Any]:
    """config.json as `LlamaConfig.save_pretrained` of transformers 4 writes it: nothing unsaid."""
    said = {
        "attention_bias": False,
        "attention_dropout": 0.0,
        "head_dim": sizes.head_dim,
        "mlp_bias": False,
        "pretraining_tp": 1,
        "rope_scaling": None,
        "rope_theta": 500000.0,
        "transformers_version": "4.57.1",
    }
    return authors_config(sizes) | said | more


def eagle1_example(sizes: Sizes, config: dict[str, Any], *more: TensorMap) -> Example:
    """The fusion and the layers with the frozen copy of the verifier's embedding, and the rows of ``more``."""
    shapes = shapes_of(TensorMap(eagle1.BODY, *more), sizes, also=[EMBEDDING])
    return Example(config=config, shapes=shapes)


def eagle3_example(sizes: Sizes, config: dict[str, Any], *, first: TensorMap | None = None) -> Example:
    """A draft vocabulary with both of its maps. ``first``: the rows of the first layer, `midlayer.` unless given."""
    tokens = kept_tokens(sizes)
    marks = [token in tokens for token in range(sizes.vocabulary)]
    values: dict[str, list[int] | list[bool]] = {"d2t": offsets(tokens), "t2d": marks}
    return Example(config=config, shapes=eagle3_shapes(sizes, first) | reduced_head(sizes), values=values)


def eagle3_shapes(sizes: Sizes, first: TensorMap | None = None) -> dict[str, tuple[int, ...]]:
    """All but the head and the vocabulary: embeddings are left to the verifier."""
    rows = TensorMap(
        eagle3.FUSION,
        first or eagle3.FIRST_LAYER.under("midlayer.", "layers.0."),
        eagle3.LATER_LAYER.under("layers.{i:1+}."),
    )
    return shapes_of(rows, sizes, aux=STATES, target=sizes.hidden)


def reduced_head(sizes: Sizes) -> dict[str, tuple[int, ...]]:
    return {"lm_head.weight": (sizes.draft_vocabulary, sizes.hidden)}


def kept_tokens(sizes: Sizes) -> list[int]:
    """The tokens of a draft vocabulary: spread evenly, the last one among them."""
    last, count = sizes.vocabulary - 1, sizes.draft_vocabulary
    return sorted(last - number * sizes.vocabulary // count for number in range(count))


def offsets(tokens: list[int]) -> list[int]:
    """`d2t` as nearly everybody writes it: what is added to a draft token to give the verifier's."""
    return [token - row for row, token in enumerate(tokens)]


def output_ids(sizes: Sizes) -> list[int]:
    """The usual three layers of the verifier, counted by their outputs."""
    return [1, sizes.verifier_layers // 2 - 1, sizes.verifier_layers - 4]


def boundary_ids(sizes: Sizes) -> list[int]:
    """The same, counted by what enters them."""
    return [number + 1 for number in output_ids(sizes)]


def speculators_config(algorithm: str) -> dict[str, Any]:
    """The envelope of the speculators library, which every release of it writes."""
    return {
        "algorithm": algorithm,
        "default_proposal_method": "greedy",
        "proposal_methods": [
            {"accept_tolerance": 0.0, "proposal_type": "greedy", "speculative_tokens": 3, "verifier_accept_k": 1}
        ],
        "verifier": {"architectures": ["LlamaForCausalLM"], "name_or_path": "meta-llama/Llama-3.1-8B-Instruct"},
    }


def layer_config(sizes: Sizes, **more: Any) -> dict[str, Any]:
    """The layer's part of a unified config: what `LlamaConfig` says when it is nested in another one."""
    outer = ("architectures", "bos_token_id", "eos_token_id", "pad_token_id", "transformers_version")
    return {key: value for key, value in transformers_config(sizes, **more).items() if key not in outer}
