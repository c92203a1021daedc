"""Drafts that vLLM serves as they lie, and for which its unified configs have no type.

Whole language models drafting for larger ones, and PARD, which is one that guesses several tokens in a pass. EAGLE-3
with DeepSeek's latent attention (MLA). The EAGLE-1 relatives of other architectures, for which vLLM has classes of
their own: Cohere's has a LayerNorm and a bias, MiniCPM's two norms before the fusion, Mistral's calls it
`eagle_linear`, DeepSeek's has `enorm` and `hnorm`. DFlash2 and LiLiCorr, which vLLM's GPU runner drafts with.

A unified config describes layers of Llama or Qwen3 and nothing else: converted, each of these would be a directory that
no server reads. What the native configs leave open stays open: vLLM takes `eagle_config`'s layer ids for inputs of
layers, whatever their trainer counted, so measure the acceptance.
"""

from __future__ import annotations

from spec_convert.formats import Format
from spec_convert.hookspecs import hookimpl
from spec_convert.plugins.families import eagle1
from spec_convert.plugins.families.recognised import INSIDE_A_TARGET, Recognised, Signs, vllm

NO_TYPE = "vLLM serves it as it lies, and no unified type stands for it"
VLLM = "https://github.com/vllm-project/vllm"
PARD_KEY = "pard_token"
NO_DRAFT = ("fc", "hidden_norm", "mask_hidden", "enorm", "hnorm", "medusa_head", *INSIDE_A_TARGET)

WHOLE = (
    "model.embed_tokens.weight",
    "model.layers.0.input_layernorm.weight",
    "model.norm.weight",
)
WHOLE_SHAPES = {
    "model.embed_tokens.weight": "vocabulary hidden",
    "model.layers.0.input_layernorm.weight": "hidden",
    "model.layers.0.self_attn.q_proj.weight": "heads*head_dim hidden",
    "model.layers.0.self_attn.k_proj.weight": "kv_heads*head_dim hidden",
    "model.layers.0.self_attn.v_proj.weight": "kv_heads*head_dim hidden",
    "model.layers.0.self_attn.o_proj.weight": "hidden heads*head_dim",
    "model.layers.0.post_attention_layernorm.weight": "hidden",
    "model.layers.0.mlp.gate_proj.weight": "inner hidden",
    "model.layers.0.mlp.up_proj.weight": "inner hidden",
    "model.layers.0.mlp.down_proj.weight": "hidden inner",
    "model.norm.weight": "hidden",
    "lm_head.weight": "vocabulary hidden",
}
LLAMA = {"hidden_size": "hidden", "vocab_size": "vocabulary", "num_attention_heads": "heads"}

LAYOUTS = (
    Recognised(
        name="dense-draft",
        title="A whole language model that drafts",
        reference=VLLM,
        signs=(Signs(tensors=WHOLE, no_keys=(PARD_KEY,), without=NO_DRAFT),),
        because=f"a whole language model with an embedding, layers and a head of its own: {NO_TYPE}",
        instead=f"if it is to draft for a larger one: {vllm('draft_model')}",
        served=True,
        config={"architectures": ["LlamaForCausalLM"], "model_type": "llama", **LLAMA},
        shapes=WHOLE_SHAPES,
    ),
    Recognised(
        name="pard",
        title="PARD: a whole language model that drafts in parallel",
        reference="arXiv 2504.18583",
        signs=(Signs(tensors=WHOLE, keys=(PARD_KEY,), without=NO_DRAFT),),
        because=f"a whole language model that guesses several tokens in one pass: {NO_TYPE}",
        instead=vllm("draft_model", parallel_drafting=True),
        served=True,
        config={"architectures": ["LlamaForCausalLM"], "model_type": "llama", PARD_KEY: 31, **LLAMA},
        shapes=WHOLE_SHAPES,
    ),
    Recognised(
        name="eagle3-mla",
        title="EAGLE-3 with latent attention (MLA)",
        reference=f"{VLLM} (deepseek_eagle3.py)",
        signs=(Signs(parts=("kv_a_proj_with_mqa", "hidden_norm"), without=INSIDE_A_TARGET),),
        because=f"its attention is DeepSeek's latent one, and unified layers are Llama's or Qwen3's: {NO_TYPE}",
        instead=vllm("eagle3"),
        served=True,
        config={"architectures": ["Eagle3DeepseekV2ForCausalLM"], "model_type": "kimi_k2", **LLAMA},
        shapes={
            "layers.0.hidden_norm.weight": "hidden",
            "layers.0.input_layernorm.weight": "hidden",
            "layers.0.post_attention_layernorm.weight": "hidden",
            "layers.0.self_attn.q_a_proj.weight": "inner 2*hidden",
            "layers.0.self_attn.q_a_layernorm.weight": "inner",
            "layers.0.self_attn.q_b_proj.weight": "heads*head_dim inner",
            "layers.0.self_attn.kv_a_proj_with_mqa.weight": "inner 2*hidden",
            "layers.0.self_attn.kv_a_layernorm.weight": "inner",
            "layers.0.self_attn.kv_b_proj.weight": "heads*head_dim inner",
            "layers.0.self_attn.o_proj.weight": "hidden heads*head_dim",
            "layers.0.mlp.gate_proj.weight": "inner hidden",
            "layers.0.mlp.up_proj.weight": "inner hidden",
            "layers.0.mlp.down_proj.weight": "hidden inner",
            "fc.weight": "hidden 3*hidden",
            "norm.weight": "hidden",
            "lm_head.weight": "vocabulary hidden",
        },
    ),
    Recognised(
        name="eagle-vllm-native",
        title="EAGLE-1 of architectures that vLLM has classes for",
        reference=f"{VLLM} (cohere_eagle.py, minicpm_eagle.py, mistral_eagle.py, deepseek_eagle.py, llama4_eagle.py)",
        signs=(
            Signs(architectures=eagle1.VLLMS),
            Signs(architectures=eagle1.FOR_VLLMS, parts=("fc",), without=INSIDE_A_TARGET),
            Signs(parts=("eagle_layers",), without=("token_id_remap", *INSIDE_A_TARGET)),
            Signs(parts=("eagle_linear",)),
            Signs(parts=("fc", "enorm", "hnorm", "kv_a_proj_with_mqa"), without=INSIDE_A_TARGET),
        ),
        because=f"not EAGLE-1's function, but that of a class of vLLM's own: {NO_TYPE}",
        instead=vllm("eagle"),
        served=True,
        config={"architectures": ["MiniCPMForCausalLM"], "model_type": "minicpm", **LLAMA},
        shapes={
            "eagle_layers.0.self_attn.q_proj.weight": "heads*head_dim hidden",
            "eagle_layers.0.self_attn.k_proj.weight": "kv_heads*head_dim hidden",
            "eagle_layers.0.self_attn.v_proj.weight": "kv_heads*head_dim hidden",
            "eagle_layers.0.self_attn.o_proj.weight": "hidden heads*head_dim",
            "eagle_layers.0.mlp.down_proj.weight": "hidden inner",
            "input_norm1.weight": "hidden",
            "input_norm2.weight": "hidden",
            "fc.weight": "hidden 2*hidden",
            "embed_tokens.weight": "vocabulary hidden",
        },
    ),
    Recognised(
        name="dflash2",
        title="DFlash2 and LiLiCorr",
        reference=f"{VLLM} (qwen3_dflash2.py, lilicorr.py)",
        signs=(
            Signs(architectures=("DFlash2DraftModel", "LiLiCorrDraftModel")),
            Signs(parts=("attention_conv", "mlp_conv")),
            Signs(parts=("lilicorr",)),
        ),
        because="convolutions and a choice among candidates beyond DFlash: "
        "vLLM's second GPU runner drafts with the checkpoint as it lies, and nothing here can check a unified one",
        instead=vllm("dflash"),
        served=True,
        config={"architectures": ["DFlash2DraftModel"], "model_type": "qwen3", **LLAMA},
        shapes={
            "layers.0.attention_conv.base_kernel": "4 hidden",
            "layers.0.mlp_conv.base_kernel": "4 hidden",
            "layers.0.self_attn.q_proj.weight": "heads*head_dim hidden",
            "fc.weight": "hidden 3*hidden",
            "hidden_norm.weight": "hidden",
            "norm.weight": "hidden",
            "candidate_selector.predecessor_codebook": "vocabulary inner",
        },
    ),
)  # fmt: skip


@hookimpl
def spec_convert_formats() -> list[Format]:
    return [layout.format(__doc__) for layout in LAYOUTS]
