"""Which format a checkpoint is of, and whether its tensors are those that the format has."""

from __future__ import annotations

import torch

from .trigger import Findings, Make, Triggers, convert, validate

TRIGGERS = Triggers()
# Formats of somebody else's: EAGLE-1 under another name, as sure of itself as EAGLE-1, less sure, or unable to look.
TWIN = 'replace(EAGLE, name="twin")'
STRANGER = (
    'replace(EAGLE, name="stranger", recognise=lambda _: weigh(required={"weights": True}, supporting={"": False}))'
)
BUGGY = 'replace(EAGLE, name="buggy", layout=lambda *_: 1 / 0, recognise=lambda _: weigh(required={"": True}))'
FAILING = 'replace(EAGLE, name="failing", recognise=lambda checkpoint: checkpoint.no_such_thing)'


@TRIGGERS.rule("unknown-format")
def weights_of_something_else(make: Make, broken: bool) -> Findings:
    draft = make.eagle()
    if broken:
        draft.tensors = {"encoder.weight": torch.ones(3, 3)}
    return validate(draft)


@TRIGGERS.rule("two-formats")
def two_that_are_equally_sure(make: Make, broken: bool) -> Findings:
    if broken:
        make.plugin(TWIN)
    return validate(make.eagle())


@TRIGGERS.rule("format-forced")
def a_format_that_does_not_fit(make: Make, broken: bool) -> Findings:
    return convert(make.specforge(), format="eagle3" if broken else "eagle3-specforge")


@TRIGGERS.rule("also-claimed")
def a_stranger_that_is_less_sure(make: Make, broken: bool) -> Findings:
    if broken:
        make.plugin(STRANGER)
    draft = make.eagle()
    draft.tensors["embed_tokens.weight"] = torch.randn(32, 16)  # speaks for EAGLE-1
    return validate(draft)


@TRIGGERS.rule("plugin-failed")
def a_format_that_raises(make: Make, broken: bool) -> Findings:
    make.plugin(FAILING if broken else STRANGER.replace("True", "False"))
    return validate(make.eagle())


@TRIGGERS.rule("plugin-bug")
def a_format_that_breaks_later(make: Make, broken: bool) -> Findings:
    if broken:
        make.plugin(BUGGY)
    return validate(make.eagle())


@TRIGGERS.rule("served-as-it-lies")
def a_whole_model_that_drafts(make: Make, broken: bool) -> Findings:
    draft = make.eagle()
    if broken:
        names = ("embed_tokens", "layers.0.input_layernorm", "norm")
        draft.tensors = {f"model.{name}.weight": torch.ones(16) for name in names}
    return validate(draft)


@TRIGGERS.rule("not-converted")
def an_eagle_with_norms_that_no_server_has(make: Make, broken: bool) -> Findings:
    return validate(make.eagle(architectures=["LlamaEagleDraftModel" if broken else "LlamaForCausalLM"]))


@TRIGGERS.rule("weights-quantised")
def a_matrix_with_a_scale(make: Make, broken: bool) -> Findings:
    draft = make.eagle()
    if broken:
        draft.tensors["fc.weight"] = draft.tensors["fc.weight"].to(torch.float8_e4m3fn)
        draft.tensors["fc.weight_scale"] = torch.ones(1)
    return validate(draft)


@TRIGGERS.rule("unclaimed-tensor")
def a_tensor_that_nobody_knows(make: Make, broken: bool) -> Findings:
    draft = make.eagle()
    if broken:
        draft.tensors["gate.weight"] = torch.ones(16)
    return validate(draft)


@TRIGGERS.rule("refused-tensor")
def a_norm_that_no_server_has(make: Make, broken: bool) -> Findings:
    draft = make.eagle()
    if broken:
        draft.tensors["norm.weight"] = torch.full((16,), 0.5)
    return validate(draft)


@TRIGGERS.rule("missing-tensor")
def a_layer_without_its_output(make: Make, broken: bool) -> Findings:
    draft = make.eagle()
    if broken:
        del draft.tensors["layers.0.self_attn.o_proj.weight"]
    return validate(draft)


@TRIGGERS.rule("two-spellings")
def the_first_layer_twice(make: Make, broken: bool) -> Findings:
    draft = make.eagle3()
    if broken:
        draft.tensors["layers.0.hidden_norm.weight"] = torch.ones(16)
    return validate(draft)


@TRIGGERS.rule("wrong-shape")
def a_transposed_matrix(make: Make, broken: bool) -> Findings:
    draft, name = make.eagle(), "layers.0.mlp.down_proj.weight"
    if broken:
        draft.tensors[name] = draft.tensors[name].T.contiguous()
    return validate(draft)


@TRIGGERS.rule("wrong-dtype")
def a_quantised_matrix(make: Make, broken: bool) -> Findings:
    draft, name = make.eagle(), "layers.0.mlp.down_proj.weight"
    if broken:
        draft.tensors[name] = (draft.tensors[name] * 100).to(torch.int8)
    return validate(draft)


@TRIGGERS.rule("not-finite")
def a_run_that_diverged(make: Make, broken: bool) -> Findings:
    draft = make.eagle()
    if broken:
        draft.tensors["fc.weight"][3, 3] = torch.nan
    return validate(draft, level="tensors")


@TRIGGERS.rule("value-lost")
def a_number_that_float16_does_not_reach(make: Make, broken: bool) -> Findings:
    draft = make.eagle()
    draft.tensors["fc.weight"][3, 3] = 1e5 if broken else 6e4
    return convert(draft, dtype="float16")
