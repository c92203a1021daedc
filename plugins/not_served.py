"""Drafts that are recognised, and that no unified directory can hold: what they compute, no server of ours computes.

Medusa is told apart so that its plugin can be named. Hydra's heads also read the tokens drafted before them. NeMo
Automodel's EAGLE-1 keeps the first norm of its layer and the last one of the model, ModelOpt's Megatron export has
`enorm` and `hnorm` besides: other functions under EAGLE's tensor names, which cannot be folded into it. ViSpec and MSD
see images. Domino and DFlare add to DFlash what vLLM does not have. MiniCPM's FR-Spec drafts score a list of frequent
tokens. Llama-4 drafts under torchtune's names have a bias on the fusion of EAGLE-3, which no server adds.
"""

from __future__ import annotations

from spec_convert.formats import Format
from spec_convert.hookspecs import hookimpl
from spec_convert.plugins.families import eagle1
from spec_convert.plugins.families.recognised import INSIDE_A_TARGET, Recognised, Signs

LLAMA = {"hidden_size": "hidden", "vocab_size": "vocabulary", "num_attention_heads": "heads"}
TRAIN = "train a draft that servers compute: `spec-convert train --draft eagle3 …`"
EAGLE_LAYER = {
    "embed_tokens.weight": "vocabulary hidden",
    "fc.weight": "hidden 2*hidden",
    "layers.0.input_layernorm.weight": "hidden",
    "layers.0.self_attn.q_proj.weight": "heads*head_dim hidden",
    "layers.0.self_attn.k_proj.weight": "kv_heads*head_dim hidden",
    "layers.0.self_attn.v_proj.weight": "kv_heads*head_dim hidden",
    "layers.0.self_attn.o_proj.weight": "hidden heads*head_dim",
    "layers.0.post_attention_layernorm.weight": "hidden",
    "layers.0.mlp.gate_proj.weight": "inner hidden",
    "layers.0.mlp.up_proj.weight": "inner hidden",
    "layers.0.mlp.down_proj.weight": "hidden inner",
    "norm.weight": "hidden",
}
MEDUSA_PLUGIN = "`pip install ./examples/spec-convert-medusa` from a checkout of spec-convert"
HYDRA_KEY = "hydra_num_heads"

LAYOUTS = (
    Recognised(
        name="medusa-heads",
        title="Medusa heads, without the plugin that converts them",
        reference="https://github.com/FasterDecoding/Medusa (arXiv 2401.10774)",
        signs=(
            Signs(square=("0.0.linear.weight",), no_keys=(HYDRA_KEY,)),
            Signs(square=("medusa_heads.0.0.linear.weight",), no_keys=(HYDRA_KEY,)),
            Signs(square=("blocks.0.layers.0.weight",), tensors=("lm_heads.0.weight",)),
        ),
        because="no built-in format converts Medusa's heads, a plugin does",
        instead=f"install it, and type the same again: {MEDUSA_PLUGIN}",
        config={"medusa_num_heads": 2, "medusa_num_layers": 1, "base_model_name_or_path": "lmsys/vicuna-7b-v1.3"},
        shapes={
            f"{head}.{part}": shape
            for head in range(2)
            for part, shape in {
                "0.linear.weight": "hidden hidden", "0.linear.bias": "hidden", "1.weight": "vocabulary hidden",
            }.items()
        },
        file="medusa_lm_head.safetensors",
    ),
    Recognised(
        name="medusa-in-model",
        title="Medusa heads inside their verifier",
        reference="https://github.com/FasterDecoding/Medusa (arXiv 2401.10774)",
        signs=(Signs(parts=("medusa_head",), without=INSIDE_A_TARGET),),
        because="the heads lie inside the whole model, and servers take a draft and its verifier apart",
        instead="save the tensors under `medusa_head.` alone, without this prefix, as medusa_lm_head.safetensors, and "
        f"convert that with the plugin: {MEDUSA_PLUGIN}",
        config={"architectures": ["MedusaLlamaModel"], "model_type": "llama", **LLAMA},
        shapes={
            "model.embed_tokens.weight": "vocabulary hidden",
            "model.norm.weight": "hidden",
            "lm_head.weight": "vocabulary hidden",
            "medusa_head.0.0.linear.weight": "hidden hidden",
            "medusa_head.0.1.weight": "vocabulary hidden",
        },
    ),
    Recognised(
        name="hydra",
        title="Hydra heads",
        reference="https://github.com/zankner/Hydra (arXiv 2402.05109)",
        signs=(Signs(keys=(HYDRA_KEY,)), Signs(parts=("hydra_mlp",)), Signs(parts=("hydra_lm_head",))),
        because="each head also reads the tokens that the heads before it drafted: no server computes them, and they "
        "are no Medusa heads",
        instead=TRAIN,
        config={HYDRA_KEY: 2, "hydra_num_layers": 1, "hydra_head_arch": "mlp", "grounded_heads": True, **LLAMA},
        shapes={
            "hydra_mlp.0.0.linear.weight": "hidden 2*hidden",
            "hydra_mlp.0.0.linear.bias": "hidden",
            "hydra_mlp.1.0.linear.weight": "hidden 3*hidden",
            "hydra_mlp.1.0.linear.bias": "hidden",
            "hydra_lm_head.0.weight": "vocabulary hidden",
            "hydra_lm_head.1.weight": "vocabulary hidden",
        },
        file="hydra_lm_head.pt",
    ),
    Recognised(
        name="eagle-nemo",
        title="EAGLE-1 of NeMo Automodel",
        reference="https://github.com/NVIDIA-NeMo/Automodel",
        signs=(Signs(architectures=eagle1.NEMOS, parts=("fc",), without=("img_adaptor",)),),
        because="its layer has a first norm and the model a last one, both trained: no server's EAGLE-1 computes them, "
        "and neither can be folded into other weights",
        instead=f"its EAGLE-3 is served: train with that recipe of NeMo, or {TRAIN}",
        config={"architectures": ["LlamaEagleDraftModel"], "model_type": "llama", "num_hidden_layers": 8, **LLAMA},
        shapes=EAGLE_LAYER,
    ),
    Recognised(
        name="eagle-modelopt",
        title="EAGLE-1 of ModelOpt's Megatron export",
        reference="https://github.com/NVIDIA/Model-Optimizer",
        signs=(
            Signs(
                parts=("fc", "enorm", "hnorm"), no_keys=("model",),
                without=("kv_a_proj_with_mqa", "eagle_layers", *INSIDE_A_TARGET),
            ),
        ),
        because="it norms embedding and state before the fusion (`enorm`, `hnorm`) and its result (`norm`), and has a "
        "head of its own: no server's EAGLE-1 computes that",
        instead=f"export an EAGLE-3 draft with ModelOpt, which is converted, or {TRAIN}",
        config={"architectures": ["LlamaForCausalLMEagle"], "model_type": "llama", **LLAMA},
        shapes=EAGLE_LAYER | {
            "enorm.weight": "hidden", "hnorm.weight": "hidden", "lm_head.weight": "vocabulary hidden",
        },
    ),
    Recognised(
        name="eagle-vision",
        title="ViSpec and MSD: EAGLE-1 that sees images",
        reference="arXiv 2509.15235 (ViSpec), 2505.14260 (MSD)",
        signs=(
            Signs(architectures=eagle1.SEEING),
            Signs(parts=("img_adaptor",)),
            Signs(parts=("imadpt",)),
        ),
        because="it compresses or keeps apart what the verifier saw of an image, and no server feeds it that",
        instead=TRAIN,
        config={"architectures": ["VispecDraftModel"], "model_type": "llama", "vispec_num_query_tokens": 2, **LLAMA},
        shapes=EAGLE_LAYER | {"img_adaptor.query": "2 hidden"},
    ),
    Recognised(
        name="domino",
        title="Domino",
        reference="https://github.com/sgl-project/SpecForge",
        signs=(Signs(parts=("prefix_gru",)),),
        because="a recurrent network over the drafted tokens beyond DFlash, which vLLM does not have",
        instead="serve it with SGLang, as its publisher says",
        config={"architectures": ["DFlashDraftModel"], "model_type": "qwen3", **LLAMA},
        shapes={
            "prefix_gru.weight_ih_l0": "3*hidden hidden",
            "prefix_gru.weight_hh_l0": "3*hidden hidden",
            "embed_proj.0.weight": "hidden hidden",
            "embed_proj.2.weight": "hidden hidden",
            "layers.0.self_attn.q_proj.weight": "heads*head_dim hidden",
            "fc.weight": "hidden 3*hidden",
            "hidden_norm.weight": "hidden",
            "norm.weight": "hidden",
        },
    ),
    Recognised(
        name="dflare",
        title="DFlare of AngelSlim",
        reference="https://github.com/Tencent/AngelSlim",
        signs=(
            Signs(architectures=("QwenDFlareDraftModel",)),
            Signs(parts=("k_proj_target", "v_proj_target")),
        ),
        because="every layer mixes the verifier's states with weights of its own and projects them apart "
        "(`layer_fusion_weights`, `k_proj_target`), which vLLM's DFlash does not",
        instead="measure it with AngelSlim's own tools; its DFlash is served",
        config={"architectures": ["QwenDFlareDraftModel"], "model_type": "qwen3", **LLAMA},
        shapes={
            "layers.0.self_attn.q_proj.weight": "heads*head_dim hidden",
            "layers.0.self_attn.k_proj_target.weight": "kv_heads*head_dim hidden",
            "layers.0.self_attn.v_proj_target.weight": "kv_heads*head_dim hidden",
            "layer_fusion_weights": "layers 3",
            "hidden_norm.weight": "hidden",
            "norm.weight": "hidden",
        },
    ),
    Recognised(
        name="eagle-minicpm-frspec",
        title="MiniCPM's EAGLE with FR-Spec",
        reference="https://github.com/OpenBMB/CPM.cu (arXiv 2502.14856)",
        signs=(Signs(parts=("token_id_remap", "eagle_layers")), Signs(parts=("token_id_remap", "input_norm1"))),
        because="it scores a list of frequent tokens (`token_id_remap`), and vLLM's class for MiniCPM has no such list",
        instead="serve it with CPM.cu, as its publisher says",
        config={"architectures": ["MiniCPMForCausalLM"], "model_type": "minicpm", **LLAMA},
        shapes={
            "token_id_remap": "draft_vocabulary",
            "input_norm1.weight": "hidden",
            "input_norm2.weight": "hidden",
            "fc.weight": "hidden 2*hidden",
            "layers.0.self_attn.q_proj.weight": "heads*head_dim hidden",
            "layers.0.mlp.down_proj.weight": "hidden inner",
        },
    ),
    Recognised(
        name="eagle3-torchtune",
        title="Llama-4's EAGLE-3 under torchtune's names",
        reference="https://github.com/pytorch/torchtune",
        signs=(Signs(parts=("draft_decoder", "feature_fusion")),),
        because="its fusion has a bias, which no server's EAGLE-3 adds, and its two norms trade names",
        instead="take a Llama-4 draft that was trained without the bias, such as ModelOpt's or SpecForge's",
        config={"architectures": ["LlamaForCausalLM"], "model_type": "llama", **LLAMA},
        shapes={
            "draft.feature_fusion.weight": "hidden 3*hidden",
            "draft.feature_fusion.bias": "hidden",
            "draft.draft_decoder.layers.0.attn.q_proj.weight": "heads*head_dim 2*hidden",
            "draft.draft_decoder.layers.0.mlp.w1.weight": "inner hidden",
            "draft.draft_decoder.layers.0.mlp_norm.scale": "hidden",
            "draft.input_embeds_norm.scale": "hidden",
            "draft.fused_features_norm.scale": "hidden",
        },
    ),
)  # fmt: skip


@hookimpl
def spec_convert_formats() -> list[Format]:
    return [layout.format(__doc__) for layout in LAYOUTS]
