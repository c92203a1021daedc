"""The unified `speculators` config as models, one per `speculators_model_type`. Source of `schemas/`.

No field has a default: what a server would otherwise guess (vLLM reads a missing `norm_before_residual` as true, every
published checkpoint means false) is always written out. Field meanings follow vllm-project/speculators 0.9.0; what is
ours alone (EAGLE-1 layernorm placement, the MLP draft) says so.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, model_serializer, model_validator

Positive = Annotated[int, Field(gt=0)]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ProposalMethod(Strict):
    """How tokens are proposed. vLLM reads only `speculative_tokens` of the first method."""

    proposal_type: Literal["greedy"]
    speculative_tokens: Positive
    verifier_accept_k: Positive
    accept_tolerance: Annotated[float, Field(ge=0)]


class VerifierReference(Strict):
    """The model that the draft was trained for: vLLM serves this one and takes its tokenizer."""

    name_or_path: str
    architectures: list[str]


class SpeculatorsConfig(Strict):
    """The envelope that tells a server how to pair draft and verifier."""

    algorithm: str
    default_proposal_method: Literal["greedy"]
    proposal_methods: Annotated[list[ProposalMethod], Field(min_length=1)]
    verifier: VerifierReference


class LayerConfig(Strict):
    """The decoder layers of the draft. vLLM makes the draft's whole model config of this, with no class defaults."""

    model_type: Literal["llama", "qwen3"]
    hidden_size: Positive
    intermediate_size: Positive
    num_hidden_layers: Positive
    num_attention_heads: Positive
    num_key_value_heads: Positive
    head_dim: Positive
    vocab_size: Positive = Field(description="The verifier's vocabulary, also when the draft's own is smaller")
    hidden_act: str
    rms_norm_eps: Annotated[float, Field(gt=0)]
    max_position_embeddings: Positive
    rope_theta: Annotated[float, Field(gt=0)]
    rope_scaling: dict[str, Any] | None
    attention_bias: bool = Field(description="Biases on q, k, v and o, as Llama has them")
    mlp_bias: bool
    tie_word_embeddings: Literal[False]


class Eagle3LayerConfig(LayerConfig):
    """EAGLE-3 layers. vLLM sizes `fc` by this count, not by the list of layer ids (vllm issue 54526)."""

    num_aux_hidden_states: Positive


class BlockLayerConfig(LayerConfig):
    """Layers of drafts that guess a block of tokens at once: Qwen3's, with norms on queries and keys.

    A row sees the verifier's states before its block, and the rows of its block; in layers of the sliding type none
    further away than the window.
    """

    model_type: Literal["qwen3"]
    mlp_bias: Literal[False]
    layer_types: list[Literal["full_attention", "sliding_attention"]] = Field(description="One for each layer")
    sliding_window: Positive | None = Field(description="How many rows one of a sliding layer sees, with itself")

    @model_validator(mode="after")
    def _typed(self) -> Self:
        if len(self.layer_types) != self.num_hidden_layers:
            raise ValueError(f"{len(self.layer_types)} layer_types for {self.num_hidden_layers} layers")
        if ("sliding_attention" in self.layer_types) != (self.sliding_window is not None):
            raise ValueError("sliding_window must be given exactly when a layer is of type sliding_attention")
        return self


class EagleLayerConfig(LayerConfig):
    """EAGLE-1 layers. `qkv_bias`: biases on q, k and v but not on o (drafts of Qwen2)."""

    qkv_bias: bool


class Envelope(Strict):
    """What every unified config holds."""

    architectures: Annotated[list[str], Field(min_length=1)]
    speculators_version: str
    speculators_config: SpeculatorsConfig
    tie_word_embeddings: Literal[False]
    torch_dtype: str


class FusedConfig(Envelope):
    """What drafts hold that are fed several states of the verifier, fused into one: EAGLE-3 and P-EAGLE."""

    speculators_model_type: Literal["eagle3", "peagle"]
    draft_vocab_size: Positive
    norm_before_residual: bool = Field(description="The residual is hidden_norm(h) instead of h")
    norm_before_fc: bool = Field(description="One RMSNorm `input_norm` over the concatenated verifier states")
    fc_norm: bool = Field(description="One RMSNorm `fc_norm.i` per verifier state (EAGLE-3.1)")
    norm_output: bool = Field(description="The state fed to the next step is the normed one")
    target_hidden_size: Positive | None = Field(description="Width of the verifier's states when not the draft's own")
    eagle_aux_hidden_state_layer_ids: list[int] = Field(
        description="Boundary ids: id k is the input of layer k = hidden_states[k]; strictly increasing"
    )
    embed_requires_grad: bool
    transformer_layer_config: Eagle3LayerConfig

    @model_validator(mode="after")
    def _agree(self) -> Self:
        ids = self.eagle_aux_hidden_state_layer_ids
        if any(a >= b for a, b in pairwise(ids)) or any(i < 0 for i in ids):
            raise ValueError(f"eagle_aux_hidden_state_layer_ids {ids} are not strictly increasing layer numbers")
        if len(ids) != self.transformer_layer_config.num_aux_hidden_states:
            raise ValueError("num_aux_hidden_states is not the number of eagle_aux_hidden_state_layer_ids")
        if self.norm_before_fc and self.fc_norm:
            raise ValueError("norm_before_fc and fc_norm exclude each other")
        return self


class Eagle3Config(FusedConfig):
    """EAGLE-3 (arXiv 2503.01840) in every dialect that servers can compute."""

    speculators_model_type: Literal["eagle3"]


class PEagleConfig(FusedConfig):
    """P-EAGLE (arXiv 2602.01469): an EAGLE-3 draft that guesses all its tokens in one pass, with no state fed back.

    `fc_norm` and `norm_output` are always false: servers do not read them in drafts of this type.
    """

    speculators_model_type: Literal["peagle"]
    fc_norm: Literal[False]
    norm_output: Literal[False]
    mask_token_id: Annotated[int, Field(ge=0)] = Field(
        description="The token that stands for one not known yet; with the tensor `mask_hidden` for its state"
    )

    @model_validator(mode="after")
    def _in_vocabulary(self) -> Self:
        if self.mask_token_id >= (size := self.transformer_layer_config.vocab_size):
            raise ValueError(f"mask_token_id {self.mask_token_id} is not in the vocabulary of {size}")
        return self


class BlockConfig(Envelope):
    """What drafts hold that guess a block of tokens in one pass, of which the first is known: DFlash and DSpark."""

    speculators_model_type: Literal["dflash", "dspark"]
    draft_vocab_size: Positive
    block_size: Positive = Field(description="Rows of a block: the newest token, and a mask for each that follows it")
    target_hidden_size: Positive | None = Field(description="Width of the verifier's states when not the draft's own")
    aux_hidden_state_layer_ids: list[Positive] = Field(
        description="Boundary ids: id k is the input of layer k = hidden_states[k]; strictly increasing"
    )
    mask_token_id: Annotated[int, Field(ge=0)] = Field(description="The token that stands for one not known yet")
    sliding_window_non_causal: bool = Field(
        description="Rows of sliding layers see the later ones of their block, as rows of full layers always do"
    )
    sample_from_anchor: bool = Field(description="The row of the known token guesses too: row k is the token after k")
    transformer_layer_config: BlockLayerConfig

    @model_validator(mode="after")
    def _agree(self) -> Self:
        ids, size = self.aux_hidden_state_layer_ids, self.transformer_layer_config.vocab_size
        if not ids or any(a >= b for a, b in pairwise(ids)):
            raise ValueError(f"aux_hidden_state_layer_ids {ids} are not strictly increasing layer numbers")
        if self.mask_token_id >= size:
            raise ValueError(f"mask_token_id {self.mask_token_id} is not in the vocabulary of {size}")
        return self


class DFlashConfig(BlockConfig):
    """DFlash (arXiv 2602.06036): the draft reads the verifier's states as keys and values of its own layers."""

    speculators_model_type: Literal["dflash"]
    sample_from_anchor: Literal[False]


class DSparkConfig(BlockConfig):
    """DSpark (arXiv 2607.05147): DFlash, and a bias on each guess from the one that was taken before it.

    `markov_head_type` is always "vanilla": servers compute no other head.
    """

    speculators_model_type: Literal["dspark"]
    markov_rank: Positive
    markov_head_type: Literal["vanilla"]
    enable_confidence_head: bool = Field(description="The file holds a head that tells how sure each guess is")
    confidence_head_with_markov: bool = Field(description="That head also reads the embedding of the token before")

    @model_validator(mode="after")
    def _head(self) -> Self:
        if self.confidence_head_with_markov and not self.enable_confidence_head:
            raise ValueError("confidence_head_with_markov says what a head reads that is not there")
        return self


class EagleConfig(Envelope):
    """EAGLE-1, EAGLE-2 and HASS (arXiv 2401.15077, 2406.16858, 2408.15766), with or without extra layernorms.

    `layernorm_position` is ours: "before_fusion" norms the verifier's state before `fc` (`hidden_layernorm`),
    "after_fusion" norms its result inside the residual branch (`layers.0.input_layernorm`, the old library's reading).
    `model_type` and `model` are there only when a stock vLLM computes this function with `method: eagle`: a fusion
    bias it would drop without a word.
    """

    speculators_model_type: Literal["eagle"]
    fusion_bias: bool
    layernorms: bool
    layernorm_position: Literal["before_fusion", "after_fusion"] | None
    transformer_layer_architecture: Literal["LlamaDecoderLayer"]
    transformer_layer_config: EagleLayerConfig
    model_type: Literal["eagle"] | None = None
    model: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _agree(self) -> EagleConfig:
        if self.layernorms != (self.layernorm_position is not None):
            raise ValueError("layernorm_position must be given exactly when layernorms is true")
        if self.model_type and (self.fusion_bias or self.layernorms):
            raise ValueError("model_type makes a stock vLLM serve this draft without its fusion bias or layernorms")
        return self

    @model_serializer(mode="wrap")
    def _without_absent(self, handler: Any) -> dict[str, Any]:
        return {k: v for k, v in handler(self).items() if v is not None or k not in ("model_type", "model")}


class EagleMlpConfig(Envelope):
    """A draft that is an MLP on the last token's embedding: Linear, ReLU, LayerNorm, repeated. Ours alone."""

    speculators_model_type: Literal["eagle_mlp"]
    hidden_size: Positive
    vocab_size: Positive
    mlp_layers: Positive
    hidden_act: Literal["relu"]
    layer_norm_eps: Annotated[float, Field(gt=0)]


class MtpLayerConfig(Strict):
    """The target's own decoder config, as far as its MTP layer, and the library that builds this layer, read it.

    `num_hidden_layers` and `layer_types` are the target's: the library takes the state behind its last layer, and
    builds the MTP layer as the last one of full attention.
    """

    model_type: str
    hidden_size: Positive
    num_hidden_layers: Positive
    layer_types: list[Literal["linear_attention", "full_attention"]]
    num_attention_heads: Positive
    num_key_value_heads: Positive
    head_dim: Positive
    vocab_size: Positive
    hidden_act: str
    rms_norm_eps: Annotated[float, Field(gt=0)]
    max_position_embeddings: Positive
    rope_parameters: dict[str, Any] = Field(
        description="With `rope_type`, `rope_theta` and `partial_rotary_factor`, and what its kind of scaling needs"
    )
    attention_bias: Literal[False]
    tie_word_embeddings: bool = Field(description="Whether the target's head is its embedding")

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if missing := {"rope_type", "rope_theta", "partial_rotary_factor"} - self.rope_parameters.keys():
            raise ValueError(f"rope_parameters has no {', '.join(sorted(missing))}")
        if len(self.layer_types) != self.num_hidden_layers or "full_attention" not in self.layer_types:
            raise ValueError("layer_types is not one word a layer, with full attention among them")
        return self


class MtpDenseLayerConfig(MtpLayerConfig):
    """Of dense Qwen3.5."""

    model_type: Literal["qwen3_5_text"]
    intermediate_size: Positive


class MtpMoeLayerConfig(MtpLayerConfig):
    """Of Qwen3-Next and Qwen3.5 with experts: each in every layer."""

    model_type: Literal["qwen3_next", "qwen3_5_moe_text"]
    num_experts: Positive
    num_experts_per_tok: Positive
    moe_intermediate_size: Positive
    shared_expert_intermediate_size: Positive
    norm_topk_prob: bool = Field(description="The weights of the chosen experts are scaled to add up to one")
    decoder_sparse_step: Literal[1]
    mlp_only_layers: Annotated[list[int], Field(max_length=0)]


class MtpConfig(Envelope):
    """The MTP head of a target, apart from it. Servers take it inside the target alone: `spec-convert stitch`."""

    speculators_model_type: Literal["mtp"]
    num_nextn_predict_layers: Literal[1]
    transformer_layer_config: Annotated[MtpDenseLayerConfig | MtpMoeLayerConfig, Field(discriminator="model_type")]


AnyConfig = Eagle3Config | PEagleConfig | EagleConfig | EagleMlpConfig | DFlashConfig | DSparkConfig | MtpConfig
UNIFIED: TypeAdapter[AnyConfig] = TypeAdapter(Annotated[AnyConfig, Field(discriminator="speculators_model_type")])
