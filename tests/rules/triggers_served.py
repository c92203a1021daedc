"""What servers read otherwise than it is meant: unified directories of other tools, or changed by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from spec_convert import convert

from ..plugins.mtp_targets import qwen3_5, write_target
from ..tiny import Tiny, random
from ..validation.as_lies import LAYER
from ..validation.as_lies import unified as lying
from .trigger import Findings, Make, Triggers, edit, unified, validate

TRIGGERS = Triggers()
IDS = "eagle_aux_hidden_state_layer_ids"


def directory(make: Make, key: str, value: Any, broken: bool) -> Findings:
    """A unified EAGLE-3 directory, beside its verifier, with another value for a key of config.json when broken."""
    folder = unified(make.eagle3())
    return validate(edit(folder, key, value) if broken else folder, verifier=make.verifier)


def with_tensors(draft: Tiny, tensors: dict[str, torch.Tensor], broken: bool) -> Findings:
    if broken:
        draft.tensors |= tensors
    return validate(draft)


@TRIGGERS.rule("left-to-servers")
def a_draft_vocabulary_that_is_not_said(make: Make, broken: bool) -> Findings:
    return directory(make, "draft_vocab_size", ..., broken)


@TRIGGERS.rule("not-written")
def a_flag_that_old_releases_did_not_know(make: Make, broken: bool) -> Findings:
    return directory(make, "norm_output", ..., broken)


@TRIGGERS.rule("read-otherwise")
def a_layer_that_is_not_in_the_file(make: Make, broken: bool) -> Findings:
    return directory(make, f"{LAYER}.num_hidden_layers", 2, broken)


@TRIGGERS.rule("obeyed-by-servers")
def attention_that_looks_ahead(make: Make, broken: bool) -> Findings:
    return directory(make, f"{LAYER}.is_causal", False, broken)


@TRIGGERS.rule("aux-count")
def four_states_and_no_word_of_it(make: Make, broken: bool) -> Findings:
    folder = unified(make.eagle3(states=4, **{IDS: [1, 3, 5, 7]}))
    return validate(edit(folder, f"{LAYER}.num_aux_hidden_states", ...) if broken else folder)


@TRIGGERS.rule("aux-layer-ids-not-written")
def states_of_layers_that_are_not_named(make: Make, broken: bool) -> Findings:
    return directory(make, IDS, None, broken)


@TRIGGERS.rule("drafting-ends-early")
def a_verifier_that_reads_longer_texts(make: Make, broken: bool) -> Findings:
    return directory(make, f"{LAYER}.max_position_embeddings", 512, broken)


@TRIGGERS.rule("verifier-unnamed")
def a_draft_of_nobody(make: Make, broken: bool) -> Findings:
    return directory(make, "speculators_config.verifier.name_or_path", None, broken)


@TRIGGERS.rule("top-level-model-type")
def a_config_that_says_llama(make: Make, broken: bool) -> Findings:
    return directory(make, "model_type", "llama", broken)


@TRIGGERS.rule("bias-read-by-attention")
def a_key_of_eagle_in_the_layers(make: Make, broken: bool) -> Findings:
    return directory(make, f"{LAYER}.bias", True, broken)


@TRIGGERS.rule("full-vocabulary-map")
def a_map_that_maps_nothing(make: Make, broken: bool) -> Findings:
    draft = make.eagle3(draft_vocab_size=32)
    del draft.tensors["d2t"], draft.tensors["t2d"]
    draft.tensors |= random({"lm_head.weight": (32, 16)})
    return with_tensors(lying(draft), {"d2t": torch.zeros(32, dtype=torch.int64)}, broken)


@TRIGGERS.rule("d2t-read-as-offsets")
def ids_in_place_of_offsets(make: Make, broken: bool) -> Findings:
    draft = lying(make.eagle3())
    return with_tensors(draft, {"d2t": draft.tensors["d2t"] + torch.arange(20)}, broken)


@TRIGGERS.rule("tensor-read-otherwise")
def a_name_that_vllm_does_not_know(make: Make, broken: bool) -> Findings:
    draft = lying(make.eagle3(layers=2))
    return validate(draft.rename("layers.1.input_layernorm.", "layers.1.hidden_norm.") if broken else draft)


@TRIGGERS.rule("vllm-spelling")
def the_spelling_of_the_authors(make: Make, broken: bool) -> Findings:
    draft = lying(make.eagle3())
    return validate(draft.rename("layers.0.", "midlayer.") if broken else draft)


@TRIGGERS.rule("t2d-missing")
def one_table_of_two(make: Make, broken: bool) -> Findings:
    draft = lying(make.eagle3())
    if broken:
        del draft.tensors["t2d"]
    return validate(draft)


@TRIGGERS.rule("unread-tensor")
def rotary_frequencies_that_are_computed_anyway(make: Make, broken: bool) -> Findings:
    return with_tensors(lying(make.eagle3()), {"layers.0.self_attn.rotary_emb.inv_freq": torch.ones(3)}, broken)


@TRIGGERS.rule("weights-beside")
def an_adapter_in_the_same_folder(make: Make, broken: bool) -> Findings:
    folder: Path = unified(make.eagle3())
    if broken:
        save_file({"adapter.weight": torch.ones(2)}, folder / "adapter.safetensors")
    return validate(folder)


@TRIGGERS.rule("not-as-converted")
def a_file_that_was_cast_afterwards(make: Make, broken: bool) -> Findings:
    folder = unified(make.eagle3())
    if broken:
        file = folder / "model.safetensors"
        held = load_file(file)
        cast = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in held.items()}
        save_file(cast, file)
        edit(folder, "torch_dtype", "float16")
    return validate(folder)


@TRIGGERS.rule("reduced-head-missing")
def a_reduced_vocabulary_without_its_head(make: Make, broken: bool) -> Findings:
    draft = make.eagle3()
    if broken:
        del draft.tensors["lm_head.weight"]
    return validate(draft)


@TRIGGERS.rule("last-layer-state")
def the_state_behind_the_last_layer(make: Make, broken: bool) -> Findings:
    return validate(make.eagle3(**{IDS: [2, 4, 8 if broken else 7]}), verifier=make.verifier)


@TRIGGERS.rule("mixed-dtypes")
def a_norm_that_was_not_cast_with_the_rest(make: Make, broken: bool) -> Findings:
    draft = make.eagle3()
    return with_tensors(draft, {"norm.weight": draft.tensors["norm.weight"].half()}, broken)


@TRIGGERS.rule("served-inside-its-target")
def a_head_apart_from_its_target(make: Make, broken: bool) -> Findings:
    target = write_target(make.tmp_path / "target", *qwen3_5())
    return validate(convert(target, make.tmp_path / "head").output if broken else unified(make.eagle3()))
