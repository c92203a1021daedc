"""The MTP draft against the layers of transformers, whose code its targets run."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from spec_convert.models.cache import Cache
from spec_convert.models.contract import VerifierTensors
from spec_convert.models.draft import Draft, build_draft
from spec_convert.models.errors import DraftError
from spec_convert.unified import UNIFIED, MtpConfig

from ..tiny import random
from .conftest import ENVELOPE, LAYER, SIZE, VOCABULARY

ROPE = {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}
SHARED = {
    **{key: LAYER[key] for key in ("hidden_size", "num_attention_heads", "num_key_value_heads", "vocab_size")},
    "head_dim": 8, "hidden_act": "silu", "rms_norm_eps": 1e-5, "max_position_embeddings": 64, "rope_parameters": ROPE,
    "num_hidden_layers": 2, "layer_types": ["linear_attention", "full_attention"], "attention_bias": False,
    "tie_word_embeddings": False,
}  # fmt: skip
EXPERTS = {
    "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 12, "shared_expert_intermediate_size": 20,
    "norm_topk_prob": True, "decoder_sparse_step": 1, "mlp_only_layers": [],
}  # fmt: skip
KINDS = {"qwen3_next": EXPERTS, "qwen3_5_text": {"intermediate_size": 24}, "qwen3_5_moe_text": EXPERTS}


def config_of(kind: str, **changes: Any) -> MtpConfig:
    layer = SHARED | KINDS[kind] | {"model_type": kind} | changes
    fields = {"speculators_model_type": "mtp", "num_nextn_predict_layers": 1, "transformer_layer_config": layer}
    config = UNIFIED.validate_python(ENVELOPE | fields)
    assert isinstance(config, MtpConfig)
    return config


def shapes(kind: str) -> dict[str, tuple[int, ...]]:
    heads = {"q_proj": (64, SIZE), "k_proj": (16, SIZE), "v_proj": (16, SIZE), "o_proj": (SIZE, 32)}
    norms = ("token_layernorm", "hidden_layernorm", "input_layernorm", "post_attention_layernorm", "final_layernorm")
    made: dict[str, tuple[int, ...]] = {f"self_attn.{name}.weight": shape for name, shape in heads.items()}
    made |= {f"self_attn.{name}.weight": (8,) for name in ("q_norm", "k_norm")}
    made |= {f"{name}.weight": (SIZE,) for name in norms} | {"input_proj.weight": (SIZE, 2 * SIZE)}
    if kind == "qwen3_5_text":
        return made | _linear("mlp.", 24)
    made |= {"mlp.gate.weight": (4, SIZE), "mlp.shared_expert_gate.weight": (1, SIZE)}
    made |= {"mlp.experts.gate_up_proj": (4, 24, SIZE), "mlp.experts.down_proj": (4, SIZE, 12)}
    return made | _linear("mlp.shared_expert.", 20)


def _linear(prefix: str, inner: int) -> dict[str, tuple[int, ...]]:
    wide = {f"{prefix}{half}_proj.weight": (inner, SIZE) for half in ("gate", "up")}
    return wide | {f"{prefix}down_proj.weight": (SIZE, inner)}


def tensors_of(kind: str) -> dict[str, Tensor]:
    return random({f"mtp_layers.0.{name}": shape for name, shape in shapes(kind).items()})


def draft_of(kind: str, **changes: Any) -> Draft:
    tables = random({"embed": (VOCABULARY, SIZE), "head": (VOCABULARY, SIZE)})
    verifier = VerifierTensors(embed_tokens=tables["embed"], lm_head=tables["head"])
    return build_draft(config_of(kind, **changes), tensors_of(kind), verifier).eval()


def inputs(rows: int = 6) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(VOCABULARY, (2, rows), generator=generator), torch.randn(2, rows, SIZE, generator=generator)


def theirs(kind: str, config: MtpConfig) -> tuple[nn.Module, nn.Module, type[nn.Module]]:
    """A decoder layer of full attention, its rotary embedding and its norm, from transformers."""
    from transformers import AutoConfig
    from transformers.models.qwen3_5 import modeling_qwen3_5 as dense
    from transformers.models.qwen3_5_moe import modeling_qwen3_5_moe as moe
    from transformers.models.qwen3_next import modeling_qwen3_next as following

    native = AutoConfig.for_model(**config.transformer_layer_config.model_dump())
    native._attn_implementation = "eager"
    match kind:
        case "qwen3_next":
            parts = following.Qwen3NextDecoderLayer, following.Qwen3NextRotaryEmbedding, following.Qwen3NextRMSNorm
        case "qwen3_5_text":
            parts = dense.Qwen3_5DecoderLayer, dense.Qwen3_5TextRotaryEmbedding, dense.Qwen3_5RMSNorm
        case _:
            parts = moe.Qwen3_5MoeDecoderLayer, moe.Qwen3_5MoeTextRotaryEmbedding, moe.Qwen3_5MoeRMSNorm
    layer, rotary, norm = parts
    return layer(native, 1).eval(), rotary(native), norm


@pytest.mark.parametrize("kind", KINDS)
@torch.inference_mode()
def test_it_computes_what_the_targets_own_layer_computes(kind: str) -> None:
    config, tensors = config_of(kind), tensors_of(kind)
    ids, states = inputs()
    layer, rotary, norm_class = theirs(kind, config)
    inner = {name.removeprefix("mtp_layers.0."): tensor for name, tensor in tensors.items()}
    layer.load_state_dict({name: inner[name] for name in layer.state_dict()})

    def norm(name: str, x: Tensor) -> Tensor:
        module = norm_class(SIZE, eps=1e-5)
        module.load_state_dict({"weight": inner[f"{name}.weight"]})
        normed: Tensor = module(x)
        return normed

    draft = draft_of(kind)
    embedding = nn.functional.embedding(ids, draft.embed_tokens.weight)  # type: ignore[arg-type, union-attr]
    both = torch.cat([norm("token_layernorm", embedding), norm("hidden_layernorm", states)], dim=-1)
    places = torch.arange(ids.shape[1])[None].expand_as(ids)
    mask = torch.full((1, 1, 6, 6), float("-inf")).triu(1)
    out = layer(both @ inner["input_proj.weight"].T, position_embeddings=rotary(both, places), attention_mask=mask)
    expected = norm("final_layernorm", out[0] if isinstance(out, tuple) else out)
    ours = draft(ids, states)
    torch.testing.assert_close(ours.hidden_states, expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(ours.logits, expected @ draft.head.T, rtol=0, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
@torch.inference_mode()
def test_with_a_cache_it_is_the_same_function(kind: str) -> None:
    draft, (ids, states) = draft_of(kind), inputs()
    whole = draft(ids, states).logits
    cache = Cache()
    for row in range(ids.shape[1]):
        step = draft(ids[:, row : row + 1], states[:, row : row + 1], torch.tensor([[row]]), attend=cache)
        torch.testing.assert_close(step.logits[:, 0], whole[:, row], rtol=0, atol=1e-5)


@torch.inference_mode()
def test_weights_of_experts_that_are_not_normed_are_smaller() -> None:
    ids, states = inputs()
    normed, plain = (draft_of("qwen3_next", norm_topk_prob=value)(ids, states).logits for value in (True, False))
    assert not torch.allclose(normed, plain)


@torch.inference_mode()
def test_keys_about_images_change_nothing_of_a_text() -> None:
    more = ROPE | {"mrope_section": [1, 1, 0], "mrope_interleaved": True}
    ids, states = inputs()
    plain, seeing = draft_of("qwen3_5_text"), draft_of("qwen3_5_text", rope_parameters=more)
    assert torch.equal(plain(ids, states).logits, seeing(ids, states).logits)


def test_a_state_of_another_width_and_an_unknown_activation_are_refused() -> None:
    ids, states = inputs()
    with pytest.raises(ValueError, match="32 wide"):
        draft_of("qwen3_5_text")(ids, torch.cat([states, states], dim=-1))
    with pytest.raises(DraftError, match="swish"):
        draft_of("qwen3_5_text", hidden_act="swish")
