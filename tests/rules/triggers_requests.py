"""What the user asked for: flags, the verifier, the trial run."""

from __future__ import annotations

import torch

from .trigger import Findings, Make, Triggers, convert, reported, validate

TRIGGERS = Triggers()


@TRIGGERS.rule("flag-contradicts-tensors")
def a_trained_bias_that_is_taken_away(make: Make, broken: bool) -> Findings:
    draft = make.eagle()
    draft.tensors["fc.bias"] = torch.ones(16)
    return convert(draft, fusion_bias=False if broken else None)


@TRIGGERS.rule("flag-not-heeded")
def layer_ids_for_eagle1(make: Make, broken: bool) -> Findings:
    return convert(make.eagle(), aux_layer_ids=[2, 4, 5] if broken else None)


@TRIGGERS.rule("flag-without-tensors")
def a_bias_that_is_not_there(make: Make, broken: bool) -> Findings:
    return convert(make.eagle(), fusion_bias=True if broken else None)


@TRIGGERS.rule("verifier-mismatch")
def states_of_another_width(make: Make, broken: bool) -> Findings:
    return validate(make.eagle(), verifier=make.make_verifier("another", hidden_size=24 if broken else 16))


@TRIGGERS.rule("verifier-unusable")
def a_verifier_without_layers(make: Make, broken: bool) -> Findings:
    return convert(make.eagle3(), verifier=make.make_verifier("another", num_hidden_layers=... if broken else 8))


@TRIGGERS.rule("forward-failed")
def a_scaling_that_nobody_computes(make: Make, broken: bool) -> Findings:
    kind = "spiral" if broken else "linear"
    return validate(make.eagle(rope_scaling={"rope_type": kind, "factor": 2.0}), level="forward")


@TRIGGERS.rule("forward-not-finite")
def finite_weights_whose_products_are_not(make: Make, broken: bool) -> Findings:
    draft = make.eagle()
    if broken:
        draft.tensors["fc.weight"] *= 1e38
    return validate(draft, level="forward")


@TRIGGERS.rule("level-not-reached")
def an_error_that_was_set_aside(make: Make, broken: bool) -> Findings:
    draft = make.eagle()
    if broken:
        draft.tensors["something.odd"] = torch.ones(2)
    return reported(make, draft, "--ignore", "unclaimed-tensor")
