"""Saved drafts are unified directories that nothing is wrong with, and compute what the module in memory computes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from spec_convert import detect, load_draft, validate
from spec_convert.errors import Refused, UsageError
from spec_convert.findings import errors
from spec_convert.models.contract import Draft
from spec_convert.training.drafts.building import new_draft
from spec_convert.training.drafts.saving import save_draft, state_of, write_draft
from spec_convert.training.drafts.shape import DraftShape
from spec_convert.training.drafts.wanted import Vocabulary
from spec_convert.verifier import open_verifier

from ..small import HIDDEN
from .conftest import some_tokens


@dataclass(frozen=True)
class Case:
    kind: str
    choices: Mapping[str, Any] = field(default_factory=dict)
    vocabulary: Vocabulary | None = None
    verifier: str = "verifier"
    states: int = 3  # how many of the verifier's are fused
    with_head: bool = False

    def make(self, request: pytest.FixtureRequest) -> tuple[Draft, Path]:
        folder: Path = request.getfixturevalue(self.verifier)
        layers = {"target_layers": (1, 3, 5)} if "eagle3" in self.kind else {}
        shape = DraftShape.model_validate(layers | self.choices)
        return new_draft(self.kind, open_verifier(folder), shape, vocabulary=self.vocabulary, seed=1), folder


MAP = some_tokens()
NARROW = {"hidden_size": 48, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 12}
CASES = {
    "eagle3": Case("eagle3", vocabulary=MAP),
    "eagle3, whole vocabulary": Case("eagle3"),
    "eagle3, two layers and four states": Case(
        "eagle3", {"num_hidden_layers": 2, "target_layers": (0, 2, 4, 5)}, MAP, states=4
    ),
    "eagle3, one state": Case("eagle3", {"target_layers": (4,)}, MAP),
    "eagle3, every other choice": Case(
        "eagle3", {"fc_norm": True, "norm_output": True, "norm_before_residual": True, "rms_norm_eps": 0.01}, MAP
    ),
    "eagle3, norm before fc, YaRN": Case(
        "eagle3",
        {
            "norm_before_fc": True,
            "rope_theta": 1e4,
            "rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32},
        },
        MAP,
    ),
    "eagle3, narrow": Case("eagle3", NARROW, MAP),
    "eagle3, narrow, whole vocabulary": Case("eagle3", NARROW),
    "eagle3, wide": Case("eagle3", {"hidden_size": 96}, MAP),
    "eagle3, Qwen3 layers": Case("eagle3", {"num_hidden_layers": 2}, MAP, "qwen3"),
    "eagle3, Llama layers for Qwen3": Case("eagle3", {"model_type": "llama"}, MAP, "qwen3"),
    "eagle3, Qwen2": Case("eagle3", {}, MAP, "qwen2"),
    "shared head": Case("eagle3-shared-head", {"max_position_embeddings": 64}),
    "shared head, stored": Case("eagle3-shared-head", with_head=True),
    "shared head, Qwen3": Case("eagle3-shared-head", verifier="qwen3"),
    "eagle": Case("eagle"),
    "eagle, Qwen3, two layers": Case("eagle", {"num_hidden_layers": 2}, verifier="qwen3"),
    "hass, Qwen2": Case("hass", verifier="qwen2"),
    "mlp": Case("eagle-mlp", {"mlp_layers": 3}),
}


@torch.no_grad()
def answers(draft: Draft, width: int) -> list[torch.Tensor]:
    """Logits over the verifier's vocabulary and states, of the first step and of the next, in float64."""
    draft = draft.double().eval()
    generator = torch.Generator().manual_seed(7)
    ids = torch.randint(512, (2, 9), generator=generator)
    states = torch.randn(2, 9, width, generator=generator, dtype=torch.float64)
    first = draft(ids, states, fed_back=False)
    second = draft(ids.roll(-1, 1), first.hidden_states, fed_back=True)
    return [part for out in (first, second) for part in (draft.to_target_vocabulary(out.logits), out.hidden_states)]


@pytest.mark.parametrize("name", CASES)
def test_a_saved_draft_is_right_and_is_the_one_in_memory(
    name: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    case = CASES[name]
    draft, verifier = case.make(request)
    generator = torch.Generator().manual_seed(2)
    for parameter in draft.parameters():  # what training does: nothing is one, zero or the verifier's any more
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    base, folder = open_verifier(verifier), tmp_path / "saved"

    save_draft(
        draft, folder, verifier=base, provenance={"kind": case.kind, "step": 7}, dtype="float32",
        with_head=case.with_head,
    )  # fmt: skip

    report = validate(folder, verifier=verifier, level="forward")  # which looks at all that lower levels look at
    found = [finding for checked in report.checked for finding in checked.findings]
    assert errors(found) == []
    assert {finding.level for finding in found} <= {"note"}, found
    assert detect(folder).format == "speculators"
    width = HIDDEN if case.kind in ("eagle", "hass", "eagle-mlp") else HIDDEN * len(ids_of(draft))
    for saved, here in zip(answers(load_draft(folder), width), answers(draft, width), strict=True):
        torch.testing.assert_close(saved, here, rtol=0, atol=0)


def ids_of(draft: Draft) -> list[int]:
    config: Any = draft.config
    ids: list[int] = config.eagle_aux_hidden_state_layer_ids
    return ids


def saved(tmp_path: Path, request: pytest.FixtureRequest, name: str, **options: Any) -> tuple[Draft, Path]:
    draft, verifier = CASES[name].make(request)
    told = {"verifier": open_verifier(verifier), "provenance": {"step": 7}, "dtype": "float32"}
    save_draft(draft, tmp_path / "saved", **told | options)
    return draft, tmp_path / "saved"


def test_conversion_json_says_how_it_was_trained(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    _, folder = saved(tmp_path, request, "eagle", provenance={"kind": "eagle", "step": 7})
    told = json.loads((folder / "conversion.json").read_text())
    assert told["trained"] == {"kind": "eagle", "step": 7}
    assert told["source"] is None
    assert told["format"] == "speculators"
    assert told["verifier"]["id"] == open_verifier(request.getfixturevalue("verifier")).name
    assert {tensor["target"] for tensor in told["tensors"]["moved"]} == load_file(folder / "model.safetensors").keys()


def test_the_config_is_as_a_conversion_of_the_directory_writes_it(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    from spec_convert import convert

    _, folder = saved(tmp_path, request, "shared head")
    convert(folder, tmp_path / "again")
    assert (tmp_path / "again" / "config.json").read_text() == (folder / "config.json").read_text()
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()
    layer = json.loads((folder / "config.json").read_text())["transformer_layer_config"]
    assert layer["max_position_embeddings"] == 1024  # the verifier's: 64 were chosen


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_floats_are_cast_and_the_draft_stays_as_it_is(
    dtype: Any, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    draft, folder = saved(tmp_path, request, "eagle3", dtype=dtype)
    stored, kind = load_file(folder / "model.safetensors"), getattr(torch, dtype)
    for name, tensor in draft.state_dict().items():
        expected = tensor.to(kind) if tensor.is_floating_point() else tensor
        assert torch.equal(stored[name], expected)
    assert {parameter.dtype for parameter in draft.parameters()} == {torch.float32}
    assert json.loads((folder / "config.json").read_text())["torch_dtype"] == dtype


def test_a_map_of_the_whole_vocabulary_and_the_shared_tables_are_not_stored(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    _, folder = saved(tmp_path, request, "shared head")
    assert not load_file(folder / "model.safetensors").keys() & {"d2t", "t2d", "lm_head.weight", "embed_tokens.weight"}
    _, again = saved(tmp_path, request, "shared head, stored", with_head=True, force=True)
    assert "lm_head.weight" in load_file(again / "model.safetensors")


def test_gathered_tensors_are_written_as_they_are_given(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    draft, verifier = CASES["shared head"].make(request)
    gathered = {name: tensor + 1 for name, tensor in draft.state_dict().items()}
    config: Any = draft.config
    write_draft(
        config, state_of(draft, gathered, with_head=True), tmp_path / "saved", verifier=open_verifier(verifier),
        trained={}, dtype="float32", force=False,
    )  # fmt: skip
    stored = load_file(tmp_path / "saved" / "model.safetensors")
    assert torch.equal(stored.pop("lm_head.weight"), draft.head)
    assert all(torch.equal(stored[name], gathered[name]) for name in stored | gathered)


def test_eagle_has_no_place_for_the_verifiers_head(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    with pytest.raises(UsageError, match="only EAGLE-3 checkpoints have a place"):
        saved(tmp_path, request, "eagle", with_head=True)


@pytest.mark.parametrize(
    ("number", "dtype", "words"),
    [(float("nan"), "float32", "holds a NaN or an infinity"), (1e30, "float16", "too large for float16")],
)
def test_weights_that_are_not_finite_are_refused_and_leave_nothing(
    number: float, dtype: str, words: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    draft, verifier = CASES["eagle"].make(request)
    draft.get_parameter("fc.weight").data[0, 0] = number
    with pytest.raises(Refused, match=f"fc.weight: .*{words}"):
        save_draft(
            draft,
            tmp_path / "saved",
            verifier=open_verifier(verifier),
            provenance={},
            dtype=dtype,  # type: ignore[arg-type]
        )
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_servers_would_misread_never_appears(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    draft, verifier = CASES["shared head"].make(request)
    tensors = {**draft.state_dict(), "d2t": torch.zeros(512, dtype=torch.int64)}
    config: Any = draft.config
    with pytest.raises(Refused, match="vLLM has no place for a map"):
        write_draft(
            config, tensors, tmp_path / "saved", verifier=open_verifier(verifier), trained={}, dtype="float32",
            force=False,
        )  # fmt: skip
    assert list(tmp_path.iterdir()) == []


def test_another_verifier_is_refused(tmp_path: Path, request: pytest.FixtureRequest, changed: Any) -> None:
    with pytest.raises(Refused, match="vocab_size is 511"):
        saved(tmp_path / "x", request, "eagle", verifier=open_verifier(changed(vocab_size=511)))


def test_a_folder_that_is_there_is_replaced_only_when_forced(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    saved(tmp_path, request, "eagle")
    with pytest.raises(UsageError, match="exists"):
        saved(tmp_path, request, "mlp")
    _, folder = saved(tmp_path, request, "mlp", force=True)
    assert "embeddings.weight" in load_file(folder / "model.safetensors")
