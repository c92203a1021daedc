"""Every trap that servers are known to set, and every fact that bites: a rule that is found, and silent on the sound.

A trap is a draft that is sound, one way to break it, and the rule that must say so, with the verifier at hand. Sound
drafts have no finding at all, but for the few that are true of them.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from ..tiny import Tiny, random
from .as_lies import LAYER, findings, unified

Make = Callable[..., Any]
KEY = "eagle_aux_hidden_state_layer_ids"


@dataclass(frozen=True)
class Trap:
    """``sound`` makes the draft; ``breaks`` changes it; ``rule`` is the one that must be found then."""

    sound: Callable[[Any], Tiny]
    breaks: Callable[[Tiny], object]
    rule: str
    always: frozenset[str] = frozenset()  # what is true of the sound draft too


class Made:
    """Drafts by the name of their fixture."""

    def __init__(self, request: pytest.FixtureRequest) -> None:
        self.get = request.getfixturevalue

    def native(self, kind: str, **options: Any) -> Tiny:
        draft: Tiny = self.get(kind)(**options)
        return draft

    def unified(self, kind: str = "eagle3", **options: Any) -> Tiny:
        return unified(self.native(kind, **options))


def top(**changes: Any) -> Callable[[Tiny], object]:
    return lambda draft: draft.set(**changes)


def layer(**changes: Any) -> Callable[[Tiny], object]:
    def change(draft: Tiny) -> None:
        kept = (draft.config[LAYER] | changes).items()
        draft.config[LAYER] = {key: value for key, value in kept if value is not ...}

    return change


def without(*names: str) -> Callable[[Tiny], object]:
    return lambda draft: [draft.tensors.pop(name) for name in names]


def adding(**shapes: tuple[int, ...]) -> Callable[[Tiny], object]:
    """Random tensors; double underscores stand for dots."""
    return lambda draft: draft.tensors.update(
        random({name.replace("__", "."): shape for name, shape in shapes.items()})
    )


def absolute(draft: Tiny) -> None:
    draft.tensors["d2t"] += torch.arange(len(draft.tensors["d2t"]))


def map_of_all(draft: Tiny) -> None:
    draft.tensors |= {"d2t": torch.zeros(32, dtype=torch.int64), "t2d": torch.ones(32, dtype=torch.bool)}


def floats(draft: Tiny) -> None:
    draft.tensors["d2t"] = draft.tensors["d2t"].to(torch.bfloat16)


def four_states(made: Made) -> Tiny:
    return unified(made.native("eagle3", states=4, **{KEY: [1, 3, 5, 7]}))


def whole_vocabulary(made: Made) -> Tiny:
    draft = made.native("eagle3", draft_vocab_size=32)
    del draft.tensors["d2t"], draft.tensors["t2d"]
    draft.tensors |= random({"lm_head.weight": (32, 16)})
    return unified(draft)


def norm_before_fc(made: Made) -> Tiny:
    draft = made.unified()
    draft.tensors |= random({"input_norm.weight": (48,)})
    return draft.set(norm_before_fc=True)


def qwen3(made: Made) -> Tiny:
    draft = made.native("specforge", prefix="layers.0.", eagle_config={KEY: [1, 3, 4]})
    draft.tensors |= random({f"layers.0.self_attn.{norm}.weight": (6,) for norm in ("q_norm", "k_norm")})
    return unified(draft)


def with_layernorms(made: Made) -> Tiny:
    draft = made.native("eagle")
    draft.tensors |= random(
        {f"{n}.weight": (16,) for n in ("embed_layernorm", "hidden_layernorm", "lm_head_layernorm")}
    )
    return draft


def plain(made: Made) -> Tiny:
    return made.unified()


def boundary_ids(made: Made) -> Tiny:
    """Counted by outputs, as SpecForge does, and with the rotary base that every release of it computed with."""
    return made.native("specforge", rope_theta=10000.0, eagle_config={KEY: [1, 3, 4]})


PLUGIN = frozenset({"needs-the-vllm-plugin"})

# By the numbers of the reference: what stock vLLM does with a unified directory.
TRAPS = {
    "1: four states, and vLLM builds fc for three": Trap(four_states, layer(num_aux_hidden_states=...), "aux-count"),
    "1: another number than fc fuses": Trap(plain, layer(num_aux_hidden_states=4), "aux-count"),
    "2: a map at full vocabulary": Trap(whole_vocabulary, map_of_all, "full-vocabulary-map"),
    "3: no map at reduced vocabulary": Trap(plain, without("d2t"), "d2t-missing"),
    "4: no head at reduced vocabulary": Trap(plain, without("lm_head.weight"), "reduced-head-missing"),
    "5: ids out of order": Trap(plain, top(**{KEY: [5, 4, 2]}), "aux-layer-ids"),
    "5: ids twice": Trap(plain, top(**{KEY: [2, 2, 5]}), "aux-layer-ids"),
    "6: ids that count outputs": Trap(plain, top(**{KEY: [1, 3, 4]}), "aux-layer-ids-suspicious"),
    "7: a fusion bias on EAGLE-3": Trap(plain, adding(fc__bias=(16,)), "refused-tensor"),
    "7: any other bias": Trap(plain, adding(layers__0__post_attention_layernorm__bias=(16,)), "unclaimed-tensor"),
    "8: EAGLE's `bias` in the layers": Trap(plain, layer(bias=True), "bias-read-by-attention"),
    "8: and at the top of EAGLE-1": Trap(
        lambda made: made.unified("eagle"), top(bias=True), "bias-read-by-attention"
    ),
    "9: a norm that stays all ones": Trap(norm_before_fc, without("input_norm.weight"), "missing-tensor"),
    "9: a norm that vLLM leaves out": Trap(norm_before_fc, top(norm_before_fc=...), "left-to-servers"),
    "10: the vocabulary of the draft for that of the verifier": Trap(plain, layer(vocab_size=20), "wrong-shape"),
    "10: absolute ids in place of offsets": Trap(plain, absolute, "d2t-read-as-offsets"),
    "11: a tensor is missing": Trap(plain, without("layers.0.mlp.up_proj.weight"), "missing-tensor"),
    "12: fewer positions than the verifier": Trap(plain, layer(max_position_embeddings=512), "drafting-ends-early"),
    "model type at the top": Trap(plain, top(model_type="llama"), "top-level-model-type"),
    "no norm_before_residual": Trap(plain, top(norm_before_residual=...), "norm-before-residual-unknown"),
    "no layer ids": Trap(plain, top(**{KEY: None}), "aux-layer-ids-not-written"),
    "no draft vocabulary": Trap(plain, top(draft_vocab_size=...), "left-to-servers"),
    "layers of no known type": Trap(plain, layer(model_type="mistral"), "read-otherwise"),
    "Qwen3 layers that are not called so": Trap(qwen3, layer(model_type=...), "left-to-servers"),
    "Qwen3 layers without a rotary base": Trap(qwen3, layer(rope_theta=...), "left-to-servers",
                                               frozenset({"rope-theta-absent"})),
}  # fmt: skip

# What bites whoever converts a native checkpoint.
FACTS = {
    "output ids in a config for servers": Trap(boundary_ids, top(**{KEY: [1, 3, 4]}), "aux-layer-ids"),
    "boundary ids in a dialect of outputs": Trap(
        boundary_ids, top(eagle_config={KEY: [2, 4, 5]}), "aux-layer-ids"
    ),
    "d2t of absolute ids": Trap(lambda made: made.native("eagle3"), absolute, "d2t-absolute"),
    "d2t of floats": Trap(lambda made: made.native("eagle3"), floats, "vocabulary-map-dtype"),
    "no rope_theta": Trap(lambda made: made.native("eagle"), top(rope_theta=...), "rope-theta-absent"),
    "layers that are not in the file": Trap(
        lambda made: made.native("eagle"), top(num_hidden_layers=2), "layer-count-differs"
    ),
    "another head size": Trap(lambda made: made.native("eagle"), top(head_dim=4), "head-dim-differs"),
    "a norm on the verifier's state that is left out": Trap(
        with_layernorms, without("hidden_layernorm.weight"), "missing-tensor", PLUGIN
    ),
    "the state behind the last layer": Trap(
        lambda made: made.native("eagle3", **{KEY: [2, 4, 7]}), top(**{KEY: [2, 4, 8]}), "last-layer-state"
    ),
}  # fmt: skip
EVERY_TRAP = pytest.mark.parametrize("trap", (TRAPS | FACTS).values(), ids=TRAPS | FACTS)


@pytest.fixture
def made(request: pytest.FixtureRequest) -> Made:
    return Made(request)


@EVERY_TRAP
def test_a_trap_is_found(trap: Trap, made: Made, verifier: Path) -> None:
    draft = trap.sound(made)
    trap.breaks(draft)
    seen = findings(draft, verifier=verifier)
    assert seen.keys() - trap.always == {trap.rule}, {rule: finding.message for rule, finding in seen.items()}


@EVERY_TRAP
def test_the_same_draft_is_clean_without_it(trap: Trap, made: Made, verifier: Path) -> None:
    seen = findings(trap.sound(made), verifier=verifier)
    assert seen.keys() <= trap.always & PLUGIN, {rule: finding.message for rule, finding in seen.items()}


# How the ids were counted cannot be seen without the verifier: any of its layers may have been meant.
UNIFIED_TRAPS = {name: trap for name, trap in TRAPS.items() if trap.rule not in ("aux-layer-ids-suspicious",)}


@pytest.mark.parametrize("trap", UNIFIED_TRAPS.values(), ids=UNIFIED_TRAPS)
def test_a_trap_in_a_unified_directory_is_found_without_its_verifier_too(trap: Trap, made: Made) -> None:
    draft = trap.sound(made)
    trap.breaks(draft)
    expected = set() if trap.rule == "drafting-ends-early" else {trap.rule}
    assert findings(draft).keys() - trap.always == expected


def test_a_fusion_bias_is_decided_by_the_tensor_and_the_key_of_that_name_is_not_carried_over(eagle: Make) -> None:
    draft = eagle(bias=True)
    promised = draft.convert()
    draft.set(bias=False).tensors |= random({"fc.bias": (16,)})
    denied = draft.convert()
    assert [one.config["fusion_bias"] for one in (promised, denied)] == [False, True]
    assert all("bias" not in one.layer.keys() | one.config.keys() for one in (promised, denied))


def test_no_conversion_of_an_eagle3_has_a_model_type_at_the_top(eagle3: Make) -> None:
    written = json.loads((eagle3(model_type="llama").convert().output / "config.json").read_text())
    assert "model_type" not in written
    assert written["norm_before_residual"] is False
