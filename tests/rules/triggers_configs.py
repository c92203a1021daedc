"""config.json: facts that are missing, contradict each other, or cannot be carried over."""

from __future__ import annotations

import torch

from .trigger import Findings, Make, Triggers, convert, edit, unified, validate

TRIGGERS = Triggers()
RESEARCH = {"prefix": "layers.0."}  # how speculators' research trainer spells the one layer


@TRIGGERS.rule("config-missing")
def weights_without_a_config(make: Make, broken: bool) -> Findings:
    folder = make.eagle().write()
    if broken:
        (folder / "config.json").unlink()
    return validate(folder)


@TRIGGERS.rule("config-key-missing")
def nothing_tells_the_epsilon(make: Make, broken: bool) -> Findings:
    return validate(make.eagle(rms_norm_eps=... if broken else 1e-5))


@TRIGGERS.rule("config-key-invalid")
def a_number_written_as_text(make: Make, broken: bool) -> Findings:
    return validate(make.eagle(num_attention_heads="four" if broken else 4))


@TRIGGERS.rule("config-invalid")
def a_directory_that_proposes_nothing(make: Make, broken: bool) -> Findings:
    folder = unified(make.eagle(), speculative_tokens=5)
    methods = [{"proposal_type": "greedy", "speculative_tokens": 0 if broken else 5}]
    return validate(edit(folder, "speculators_config.proposal_methods", methods))


@TRIGGERS.rule("layer-count-differs")
def a_config_that_counts_the_verifiers_layers(make: Make, broken: bool) -> Findings:
    return validate(make.eagle(num_hidden_layers=32 if broken else 1))


@TRIGGERS.rule("head-dim-differs")
def a_head_size_that_was_computed(make: Make, broken: bool) -> Findings:
    return validate(make.eagle(head_dim=16 // 4 if broken else 6))


@TRIGGERS.rule("dtype-differs")
def the_verifiers_dtype(make: Make, broken: bool) -> Findings:
    return validate(make.eagle(torch_dtype="float16" if broken else "float32"))


@TRIGGERS.rule("rope-theta-absent")
def nothing_said_of_the_base(make: Make, broken: bool) -> Findings:
    return validate(make.eagle(rope_theta=... if broken else 10000.0))


@TRIGGERS.rule("rope-not-as-config")
def a_base_that_angelslim_does_not_read(make: Make, broken: bool) -> Findings:
    draft = make.eagle3(architectures=["Eagle3LlamaForCausalLM"])
    return validate(draft.set(rope_theta=1000000.0 if broken else 10000.0))


@TRIGGERS.rule("rope-as-trained-unknown")
def a_base_that_specforge_may_not_have_read(make: Make, broken: bool) -> Findings:
    return validate(make.specforge(rope_theta=1000000.0 if broken else 10000.0))


@TRIGGERS.rule("fixed-by-the-trainer")
def what_the_home_made_trainer_writes_nowhere(make: Make, broken: bool) -> Findings:
    draft = make.home_made()
    del draft.tensors["hidden_state_projection.weight"]
    fixed = {"hidden_act": "silu", "max_position_embeddings": 131072, "rope_theta": 1e6}
    return convert(draft if broken else draft.set(**fixed), aux_layer_ids=[2, 4, 6])


@TRIGGERS.rule("norm-before-residual-unknown")
def a_spelling_that_two_trainers_share(make: Make, broken: bool) -> Findings:
    return validate(make.eagle3(**RESEARCH, norm_before_residual=... if broken else False))


@TRIGGERS.rule("aux-layer-ids")
def states_in_another_order(make: Make, broken: bool) -> Findings:
    ids = [5, 4, 2] if broken else [2, 4, 5]
    return validate(make.eagle3(eagle_aux_hidden_state_layer_ids=ids))


@TRIGGERS.rule("aux-layer-ids-unknown")
def a_trainer_that_took_other_states(make: Make, broken: bool) -> Findings:
    draft = make.eagle3(**RESEARCH, norm_before_residual=True)
    return validate(draft.set(eagle_aux_hidden_state_layer_ids=... if broken else [3, 5, 6]))


@TRIGGERS.rule("aux-layer-ids-suspicious")
def ids_that_count_outputs(make: Make, broken: bool) -> Findings:
    folder = unified(make.eagle3(), aux_layer_ids=[1, 3, 4] if broken else [2, 4, 5])
    return validate(folder, verifier=make.verifier)


@TRIGGERS.rule("aux-layer-ids-need-verifier")
def no_ids_and_no_verifier(make: Make, broken: bool) -> Findings:
    return validate(make.eagle3(), verifier=None if broken else make.verifier)


@TRIGGERS.rule("flag-contradicts-dialect")
def a_flag_that_the_trainer_never_read(make: Make, broken: bool) -> Findings:
    return validate(make.eagle3(norm_before_residual=broken))


@TRIGGERS.rule("config-contradicts-itself")
def two_bases(make: Make, broken: bool) -> Findings:
    nested = {"rope_type": "default", "rope_theta": 10000.0 if broken else 500000.0}
    return validate(make.eagle(rope_theta=500000.0, rope_parameters=nested))


@TRIGGERS.rule("config-contradicts-tensors")
def a_flag_that_denies_a_bias(make: Make, broken: bool) -> Findings:
    draft = make.eagle()
    draft.tensors["fc.bias"] = torch.ones(16)
    return validate(edit(unified(draft), "fusion_bias", not broken))


@TRIGGERS.rule("not-representable")
def capped_attention(make: Make, broken: bool) -> Findings:
    return validate(make.eagle(attn_logit_softcapping=50.0 if broken else None))


@TRIGGERS.rule("unknown-unified-type")
def a_type_of_tomorrow(make: Make, broken: bool) -> Findings:
    return validate(edit(unified(make.eagle()), "speculators_model_type", "eagle9" if broken else "eagle"))


@TRIGGERS.rule("trainer-differs-from-servers")
def a_later_modelopt(make: Make, broken: bool) -> Findings:
    draft = make.specforge(prefix="layers.0." if broken else "midlayer.")
    del draft.tensors["t2d"]
    return validate(draft)


@TRIGGERS.rule("state-fed-back-differs")
def a_projection_of_the_state_fed_back(make: Make, broken: bool) -> Findings:
    draft = make.home_made()
    if not broken:
        del draft.tensors["hidden_state_projection.weight"]
    return convert(draft, aux_layer_ids=[2, 4, 6])


@TRIGGERS.rule("positions-extended")
def a_draft_for_shorter_texts(make: Make, broken: bool) -> Findings:
    return validate(make.eagle(max_position_embeddings=1024 if broken else 2048), verifier=make.verifier)


@TRIGGERS.rule("positions-end-early")
def a_scaling_that_depends_on_the_positions(make: Make, broken: bool) -> Findings:
    scaling = {"rope_type": "dynamic", "factor": 2.0}
    draft = make.eagle(rope_scaling=scaling, max_position_embeddings=1024 if broken else 2048)
    return validate(draft, verifier=make.verifier)


@TRIGGERS.rule("needs-the-vllm-plugin")
def a_fusion_bias(make: Make, broken: bool) -> Findings:
    draft = make.eagle()
    if broken:
        draft.tensors["fc.bias"] = torch.ones(16)
    return convert(draft)


@TRIGGERS.rule("windows-need-the-plugin")
def windows_in_some_layers(make: Make, broken: bool) -> Findings:
    types = ["sliding_attention", "full_attention" if broken else "sliding_attention"]
    return convert(make.dflash(layers=2, layer_types=types, sliding_window=5))
