"""The way back: what a target cannot compute, what a fold loses, and what does not read back."""

from __future__ import annotations

import torch

from spec_convert import convert
from spec_convert.errors import Refused
from spec_convert.stitching import stitch

from ..plugins.mtp_targets import qwen3_5, write_target
from .trigger import Findings, Make, Triggers, edit, export, unified

TRIGGERS = Triggers()
# A plugin's way out of unified EAGLE-1 drafts, into its own reading of EAGLE-1, that may forget the rotary base.
FOR_ACME = """replace(EAGLE, name="acme", exports=(Export(target="acme", of="eagle", write=write),),
    recognise=lambda checkpoint: weigh(required={"acme": checkpoint.architecture == "AcmeEagle"}))

from spec_convert.plugins.families import eagle1_out, out

def write(draft):
    config = out.config(draft, "AcmeEagle", leave_out=[LEFT_OUT])
    return replace(eagle1_out.for_vllm(draft), config=config)
"""


@TRIGGERS.rule("export-not-representable")
def layernorms_around_the_fusion(make: Make, broken: bool) -> Findings:
    draft = make.eagle()
    if broken:
        norms = ("embed_layernorm", "hidden_layernorm", "lm_head_layernorm")
        draft.tensors |= {f"{name}.weight": torch.full((16,), 0.5) for name in norms}
    return export(unified(draft), to="vllm")


@TRIGGERS.rule("export-residual")
def a_fusion_that_ignores_the_embedding(make: Make, broken: bool) -> Findings:
    draft = make.eagle()
    draft.tensors["fc.bias"] = torch.ones(16)
    draft.tensors["fc.weight"][:, :16] = 0 if broken else torch.eye(16)
    return export(unified(draft), to="vllm")


@TRIGGERS.rule("export-not-read-back")
def a_plugin_that_forgets_the_rotary_base(make: Make, broken: bool) -> Findings:
    make.plugin(FOR_ACME.replace("LEFT_OUT", '"rope_theta"' if broken else ""))
    return export(unified(make.eagle()), to="acme")


@TRIGGERS.rule("export-changed")
def a_bias_inside_the_embedding(make: Make, broken: bool) -> Findings:
    draft = make.eagle()
    if broken:
        draft.tensors["fc.bias"] = torch.ones(16)
    return export(unified(draft), to="vllm")


@TRIGGERS.rule("stitch-mismatch")
def a_head_of_another_layer(make: Make, broken: bool) -> Findings:
    target = write_target(make.tmp_path / "target", *qwen3_5())
    folder = convert(target, make.tmp_path / "head").output
    if broken:
        edit(folder, "transformer_layer_config.rms_norm_eps", 0.5)
    try:
        return stitch(folder, make.tmp_path / "stitched").findings
    except Refused as refused:
        return refused.findings
