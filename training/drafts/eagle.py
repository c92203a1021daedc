"""Fresh EAGLE-1 drafts, which EAGLE-2 and HASS train too, and fresh MLP drafts."""

from __future__ import annotations

import math

import torch

from spec_convert.errors import UsageError
from spec_convert.models.draft import Draft, VerifierTensors
from spec_convert.models.eagle import EagleDraft
from spec_convert.models.mlp import MlpDraft
from spec_convert.plugins.eagle_mlp import LAYER_NORM_EPS
from spec_convert.training.drafts.families import layer_facts
from spec_convert.training.drafts.wanted import Wanted
from spec_convert.training.drafts.weights import embedding_and_head
from spec_convert.unified import UNIFIED, EagleConfig, EagleMlpConfig

MLP_HEEDS = frozenset({"hidden_size", "num_hidden_layers", "mlp_layers"})
MLP_LAYERS = 2


def eagle(wanted: Wanted) -> Draft:
    """Embedding and head are the verifier's and do not train; everything else begins as noise.

    A fusion that begins by passing the verifier's state on learns to lean on it, and then goes wrong on its own: on
    SmolLM2 its second and third guesses were right in .30 and .20 of the rows where noise came to .36 and .33.
    """
    verifier = wanted.verifier
    wanted.refuse_vocabulary()
    layer = layer_facts(verifier, wanted.shape, may_norm_heads=False)
    wanted.require_width(layer["hidden_size"], "the head")
    own = {
        "fusion_bias": False,
        "layernorms": False,
        "layernorm_position": None,
        "transformer_layer_architecture": "LlamaDecoderLayer",
        # EAGLE's authors give drafts of Qwen2 the biases of its layers.
        "transformer_layer_config": layer | {"qkv_bias": verifier.text_config.get("model_type") == "qwen2"},
    }
    config = UNIFIED.validate_python(wanted.envelope("eagle", "EagleSpeculator") | own)
    assert isinstance(config, EagleConfig)
    embedding, head = embedding_and_head(verifier)
    with torch.device("meta"):
        empty = EagleDraft(config, embed_tokens=embedding, lm_head=head)
    shared = VerifierTensors(embed_tokens=embedding, lm_head=head)
    return wanted.filled(empty, {}, shared)


def mlp(wanted: Wanted) -> Draft:
    """Embedding and head are the draft's own, which train; they begin as the verifier's."""
    verifier, shape = wanted.verifier, wanted.shape
    wanted.refuse_vocabulary()
    size = verifier.hidden_size
    wanted.require_width(shape.hidden_size or size, "the embedding, with which the draft's begins,")
    if shape.mlp_layers and shape.num_hidden_layers and shape.mlp_layers != shape.num_hidden_layers:
        message = f"mlp_layers is {shape.mlp_layers} and num_hidden_layers {shape.num_hidden_layers}"
        raise UsageError(message, hint="they mean the same for an MLP: give one of them")
    own = {
        "hidden_size": size,
        "vocab_size": verifier.vocab_size,
        "mlp_layers": shape.mlp_layers or shape.num_hidden_layers or MLP_LAYERS,
        "hidden_act": "relu",
        "layer_norm_eps": LAYER_NORM_EPS,
    }
    config = UNIFIED.validate_python(wanted.envelope("eagle_mlp", "EagleMlpSpeculator") | own)
    assert isinstance(config, EagleMlpConfig)
    embedding, head = embedding_and_head(verifier)
    with torch.device("meta"):
        empty = MlpDraft(config)
    given = {"embeddings.weight": embedding, "lm_head.weight": head.clone()}
    for number in range(config.mlp_layers):  # the noise that keeps the size of what goes through a ReLU
        given[f"mlp.{3 * number}.weight"] = torch.randn(size, size, generator=wanted.generator) * math.sqrt(2 / size)
    return wanted.filled(empty, given, None)
