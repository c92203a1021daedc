"""Converting an export gives what was exported: config and bytes, for any draft that the target can have.

Judged from outside, by converting the written folder as anybody's checkpoint; what an export declares as changed is
left out of the comparison, and whether a draft may be refused is decided here again, in the words of the target.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor

from spec_convert import convert
from spec_convert.errors import Refused
from spec_convert.exporting import export

from ..tiny import Sizes, random, write

# Heads as SafeAILab's EAGLE-1 needs them.
SIZES = Sizes(hidden=16, inner=40, heads=4, kv_heads=2, head_dim=4, vocabulary=32, draft_vocabulary=20)
LAYERS = 8
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
ROPE_SCALINGS = (None, {"type": "linear", "factor": 2.0}, {"rope_type": "llama3", "factor": 8.0})
FORMATS = {"vllm": "eagle", "sglang": "eagle", "safeai": "eagle", "speculators-0.6": "speculators-eagle"}
FORMATS3 = {"vllm": "eagle3-vllm", "sglang": "eagle3-specforge", "safeai": "eagle3"}
often = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))


@dataclass(frozen=True, kw_only=True)
class Eagle:
    """An EAGLE-1 draft: all that targets differ in."""

    layers: int
    dtype: str
    fusion_bias: bool
    qkv_bias: bool
    embedding: str  # "shared", "own" or "copy" of the verifier's
    scaling: dict[str, Any] | None
    theta: float
    tokens: int

    def tensors(self, verifier: dict[str, Tensor]) -> dict[str, Tensor]:
        made = SIZES.eagle(self.layers)
        if self.fusion_bias:
            made |= random({"fc.bias": (SIZES.hidden,)})
        for number in range(self.layers) if self.qkv_bias else ():
            made |= SIZES.qkv_bias(f"layers.{number}.")
        if self.embedding == "own":
            made |= SIZES.embedding()
        if self.embedding == "copy":
            made["embed_tokens.weight"] = verifier["model.embed_tokens.weight"].clone()
        return _stored(made, self.dtype)

    @property
    def config(self) -> dict[str, Any]:
        return SIZES.llama(rope_theta=self.theta, rope_scaling=self.scaling)

    def refused_by(self, target: str) -> bool:
        known = self.scaling is None or (self.scaling.get("type") == "linear" and self.theta == 10000)
        return {
            "vllm": self.fusion_bias,  # folded, which is not the identity: see test_export_folded
            "sglang": self.qkv_bias or self.embedding == "own",
            "safeai": not known,
            "speculators-0.6": (
                self.layers > 1 or self.qkv_bias or self.embedding == "own"
                or self.scaling is not None or self.theta != 10000
            ),
        }[target]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Eagle3:
    """An EAGLE-3 draft: all that targets differ in."""

    layers: int
    dtype: str
    ids: tuple[int, ...]
    reduced: bool
    head: bool
    embedding: str
    qk_norms: bool
    biases: bool
    norms: str  # "none", "before fc" or "per state"
    norm_before_residual: bool
    norm_output: bool
    tokens: int

    def tensors(self, verifier: dict[str, Tensor]) -> dict[str, Tensor]:
        made = SIZES.eagle3_body("layers.0.", self.layers, len(self.ids))
        if self.reduced:
            made |= SIZES.reduced_head(range(4, 24))
        elif self.head:
            made |= SIZES.embedding("lm_head.weight")
        if self.embedding == "own":
            made |= SIZES.embedding()
        if self.embedding == "copy":
            made["embed_tokens.weight"] = verifier["model.embed_tokens.weight"].clone()
        for number in range(self.layers) if self.qk_norms else ():
            names = (f"layers.{number}.self_attn.{norm}.weight" for norm in ("q_norm", "k_norm"))
            made |= random(dict.fromkeys(names, (SIZES.head_dim,)))
        for number in range(self.layers) if self.biases else ():
            layer = f"layers.{number}."
            made |= SIZES.qkv_bias(layer) | random({f"{layer}self_attn.o_proj.bias": (SIZES.hidden,)})
        if self.norms == "before fc":
            made |= random({"input_norm.weight": (len(self.ids) * SIZES.hidden,)})
        if self.norms == "per state":
            made |= random({f"fc_norm.{number}.weight": (SIZES.hidden,) for number in range(len(self.ids))})
        return _stored(made, self.dtype)

    @property
    def config(self) -> dict[str, Any]:
        """As the speculators library writes it: the one layout that can say all of this."""
        return {
            "architectures": ["Eagle3Speculator"], "speculators_model_type": "eagle3",
            "draft_vocab_size": SIZES.draft_vocabulary if self.reduced else SIZES.vocabulary,
            "norm_before_residual": self.norm_before_residual, "norm_output": self.norm_output,
            "eagle_aux_hidden_state_layer_ids": list(self.ids),
            "transformer_layer_config": SIZES.llama(
                model_type="qwen3" if self.qk_norms else "llama", rope_theta=500000.0, num_hidden_layers=self.layers
            ),
        }  # fmt: skip

    def refused_by(self, target: str) -> bool:
        plain = not (self.norm_before_residual or self.norm_output or self.qk_norms)
        usual = self.ids == (2, LAYERS // 2, LAYERS - 3)
        outputs = [number - 1 for number in self.ids]
        # As outputs these would be the default of those who count inputs: whoever reads them cannot know.
        doubtful = outputs == [2, LAYERS // 2, LAYERS - 3] or outputs[0] < 0
        return {
            "vllm": self.qk_norms and self.biases,
            "sglang": not plain or self.biases or doubtful or self.embedding == "own" or len(self.ids) == 1,
            "safeai": not plain or self.biases or not usual or self.norms != "none" or self.layers > 1,
        }[target]


def _stored(tensors: dict[str, Tensor], dtype: str) -> dict[str, Tensor]:
    return {name: t.to(DTYPES[dtype]) if t.is_floating_point() else t for name, t in tensors.items()}


EAGLES = st.builds(
    Eagle,
    layers=st.integers(1, 2),
    dtype=st.sampled_from(sorted(DTYPES)),
    fusion_bias=st.booleans(),
    qkv_bias=st.booleans(),
    embedding=st.sampled_from(["shared", "own", "copy"]),
    scaling=st.sampled_from(ROPE_SCALINGS),
    theta=st.sampled_from([10000.0, 500000.0]),
    tokens=st.integers(1, 7),
)
EAGLE3S = st.builds(
    Eagle3,
    layers=st.integers(1, 2),
    dtype=st.sampled_from(sorted(DTYPES)),
    ids=st.sampled_from([(2, 4, 5), (2, 4, 5), (2, 4, 5), (3, 5, 6), (1, 3, 7), (0, 2, 4), (1, 2, 5, 8), (4,)]),
    reduced=st.booleans(),
    head=st.booleans(),
    embedding=st.sampled_from(["shared", "own", "copy"]),
    qk_norms=st.sampled_from([False, False, False, True]),
    biases=st.sampled_from([False, False, False, True]),
    norms=st.sampled_from(["none", "none", "before fc", "per state"]),
    norm_before_residual=st.sampled_from([False, False, True]),
    norm_output=st.sampled_from([False, False, True]),
    tokens=st.integers(1, 7),
)


def make_verifier(folder: Path, dtype: str) -> dict[str, Tensor]:
    shape = SIZES.vocabulary, SIZES.hidden
    tables = _stored(random({"model.embed_tokens.weight": shape, "lm_head.weight": shape}), dtype)
    write(folder, SIZES.llama(num_hidden_layers=LAYERS), tables)
    return tables


def raw(folder: Path, without: Any = ()) -> dict[str, tuple[torch.dtype, tuple[int, ...], bytes]]:
    """Every tensor with its dtype, shape and bits."""
    held = load_file(folder / "model.safetensors")
    return {
        name: (t.dtype, tuple(t.shape), t.contiguous().view(torch.uint8).numpy().tobytes())
        for name, t in held.items()
        if name not in without
    }


def config(folder: Path) -> dict[str, Any]:
    said: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return said


def check(draft: Eagle | Eagle3, target: str, formats: dict[str, str]) -> None:
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        verifier = make_verifier(root / "verifier", draft.dtype)
        source = write(root / "source", draft.config, draft.tensors(verifier))
        unified = convert(source, root / "unified", verifier=root / "verifier", speculative_tokens=draft.tokens).output
        if draft.refused_by(target):
            return refused(draft, target, root)
        done = export(unified, root / "exported", to=target)
        again = convert(done.output, root / "again", verifier=root / "verifier", speculative_tokens=draft.tokens)
        assert again.format == done.format == formats[target]
        assert config(again.output) == config(unified)
        assert raw(again.output, done.changed) == raw(unified, done.changed)
        assert done.changed.keys() <= {"embed_tokens.weight", "lm_head.weight"}
        return taken_or_left(raw(again.output), raw(unified), set(done.changed), verifier)


def refused(draft: Eagle | Eagle3, target: str, root: Path) -> None:
    if isinstance(draft, Eagle) and target == "vllm":
        return  # not refused but folded
    with pytest.raises(Refused) as problem:
        export(root / "unified", root / "exported", to=target)
    assert {finding.rule for finding in problem.value.findings if finding.level == "error"} <= {
        "export-not-representable", "export-not-read-back",
    }  # fmt: skip
    assert not (root / "exported").exists()


def taken_or_left(again: Any, before: Any, changed: set[str], verifier: dict[str, Tensor]) -> None:
    """A table that an export adds or leaves out is the verifier's, to the bit."""
    theirs = {
        name.removeprefix("model."): t.contiguous().view(torch.uint8).numpy().tobytes() for name, t in verifier.items()
    }
    for name in changed:
        assert (name in again) != (name in before)
        assert (again.get(name) or before[name])[2] == theirs[name]


@pytest.mark.parametrize("target", FORMATS)
@often
@given(draft=EAGLES)
def test_an_eagle1_draft_comes_back_as_it_was(target: str, draft: Eagle) -> None:
    check(draft, target, FORMATS)


@pytest.mark.parametrize("target", FORMATS3)
@often
@given(draft=EAGLE3S)
def test_an_eagle3_draft_comes_back_as_it_was(target: str, draft: Eagle3) -> None:
    check(draft, target, FORMATS3)


def test_a_narrow_draft_comes_back_as_it_was(tmp_path: Path) -> None:
    """States of another width than the draft's: it has its own embedding and head then."""
    narrow = replace(SIZES, hidden=12, heads=3)
    made = narrow.eagle3(target=SIZES.hidden) | narrow.embedding()
    make_verifier(tmp_path / "verifier", "float32")
    said = narrow.llama(draft_vocab_size=20, target_hidden_size=SIZES.hidden)
    source = write(tmp_path / "source", said, made)
    unified = convert(source, tmp_path / "unified", verifier=tmp_path / "verifier").output
    for target in FORMATS3:
        done = export(unified, tmp_path / target, to=target)
        again = convert(done.output, tmp_path / f"{target}-again", verifier=tmp_path / "verifier").output
        assert (config(again), raw(again), done.exact) == (config(unified), raw(unified), True)
