"""Exports that hold the same function in other tensors: a folded bias, an MLP as a table. The drafts stay the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from spec_convert import convert, load_draft
from spec_convert.errors import Refused
from spec_convert.exporting import Exported, export

Make = Callable[..., Any]
# In float32, of the largest value: 4e-7 was seen for the fold, 1e-6 for the MLP.
TOLERANCE = 1e-5
HIDDEN, VOCABULARY = 16, 32


def biased(draft: Any, weight: Tensor | None = None) -> Any:
    """A fusion whose embedding half is well conditioned, with a bias."""
    half = torch.eye(HIDDEN) + 0.1 * draft.tensors["fc.weight"][:, :HIDDEN] if weight is None else weight
    draft.tensors["fc.weight"] = torch.cat((half, draft.tensors["fc.weight"][:, HIDDEN:]), dim=1)
    draft.tensors["fc.bias"] = torch.linspace(-1, 1, HIDDEN)
    return draft


def with_embedding(draft: Any) -> Any:
    draft.tensors["embed_tokens.weight"] = torch.randn(VOCABULARY, HIDDEN, generator=torch.Generator().manual_seed(9))
    return draft


def with_verifiers_head(draft: Any) -> Any:
    draft.tensors["lm_head.weight"] = load_file(draft.verifier / "model.safetensors")["lm_head.weight"]
    return draft


def with_own_head(draft: Any) -> Any:
    draft.tensors["lm_head.weight"] = draft.tensors["embeddings.weight"].clone()
    return draft


def exported(draft: Any, to: str = "vllm", flags: dict[str, Any] | None = None, **more: Any) -> tuple[Path, Exported]:
    """The unified directory and its export."""
    unified = draft.convert(**flags or {}).output
    return unified, export(unified, unified.parent / "exported", to=to, **more)


def again(done: Exported, verifier: Path) -> Path:
    return convert(done.output, done.output.parent / "again", verifier=verifier).output


@torch.no_grad()
def assert_same_function(one: Path, other: Path) -> None:
    """Two steps, the second fed with the first one's states: logits and states agree."""
    ours, theirs = load_draft(one), load_draft(other)
    random = torch.Generator().manual_seed(1)
    ids = torch.randint(VOCABULARY, (2, 9), generator=random)
    states = torch.randn(2, 9, HIDDEN, generator=random)
    for fed_back in (False, True):
        left, right = ours(ids, states, fed_back=fed_back), theirs(ids, states, fed_back=fed_back)
        for a, b in zip(left, right, strict=True):
            assert (a - b).abs().max() <= TOLERANCE * a.abs().max()
        states = left.hidden_states


@pytest.mark.parametrize("own", [False, True], ids=["shared embedding", "own embedding"])
def test_a_folded_bias_is_the_same_function(own: bool, eagle: Make) -> None:
    draft = biased(with_embedding(eagle()) if own else eagle())
    unified, done = exported(draft)
    assert "fc.bias" not in load_file(done.output / "model.safetensors")
    assert_same_function(unified, again(done, draft.verifier))


def test_without_the_bias_it_would_be_another_function(eagle: Make) -> None:
    """The comparison above can fail: what servers do with a bias that they do not know."""
    draft = biased(eagle())
    unified = draft.convert().output
    with pytest.raises(AssertionError):
        assert_same_function(unified, draft.convert(fusion_bias=False).output)


def test_what_the_fold_loses_is_said(eagle: Make) -> None:
    (note,) = (f for f in exported(biased(eagle()))[1].findings if f.rule == "export-changed")
    assert note.where == "embed_tokens.weight"
    assert "condition number" in note.message
    assert "over 32 tokens" in note.message


def test_an_export_with_a_folded_bias_is_not_called_exact(eagle: Make) -> None:
    done = exported(biased(eagle()))[1]
    assert not done.exact
    assert set(done.changed) == {"fc.bias", "embed_tokens.weight"}


def test_a_bias_of_zeros_is_left_out(eagle: Make) -> None:
    draft = eagle()
    draft.tensors["fc.bias"] = torch.zeros(HIDDEN)
    unified, done = exported(draft)
    assert "embed_tokens.weight" not in load_file(done.output / "model.safetensors")
    assert_same_function(unified, again(done, draft.verifier))


def test_a_singular_fusion_is_refused(eagle: Make) -> None:
    with pytest.raises(Refused, match="singular"):
        exported(biased(eagle(), torch.ones(HIDDEN, HIDDEN)))


def test_a_badly_conditioned_fusion_is_refused(eagle: Make) -> None:
    spread = torch.diag(torch.logspace(0, -7, HIDDEN))
    with pytest.raises(Refused, match="more than 1e-04") as refused:
        exported(biased(eagle(), spread @ torch.linalg.qr(torch.randn(HIDDEN, HIDDEN)).Q))
    assert "serves the unified directory" in refused.value.hint


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_sum_that_the_stored_dtype_cannot_hold_is_refused(dtype: str, eagle: Make) -> None:
    """The rounding of e' counts, not only the solution of W d = b."""
    with pytest.raises(Refused, match="as stored") as refused:
        exported(biased(eagle()), flags={"dtype": dtype})
    assert "--dtype float32" in refused.value.hint


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_in_float32_the_same_sum_is_the_same_function(dtype: str, eagle: Make) -> None:
    draft = biased(eagle())
    unified, done = exported(draft, flags={"dtype": dtype}, dtype="float32")
    assert {t.dtype for t in load_file(done.output / "model.safetensors").values()} == {torch.float32}
    assert_same_function(unified, again(done, draft.verifier))


def test_an_mlp_draft_becomes_an_eagle_draft_of_the_same_function(mlp: Make) -> None:
    draft = with_verifiers_head(mlp())
    unified, done = exported(draft)
    written = again(done, draft.verifier)
    assert done.format == "eagle"
    assert_same_function(unified, written)


@pytest.mark.parametrize("linears", [1, 3])
def test_an_mlp_draft_may_have_any_depth(linears: int, mlp: Make) -> None:
    draft = with_verifiers_head(mlp(mlp_layers=linears))
    kept = {f"mlp.{3 * n + part}" for n in range(linears) for part in (0, 2)}
    made = {name: t for name, t in draft.tensors.items() if not name.startswith("mlp.")}
    parts = {f"{name}.{part}": torch.randn(HIDDEN, HIDDEN) if part == "weight" and int(name[4:]) % 3 == 0
             else torch.randn(HIDDEN) for name in kept for part in ("weight", "bias")}  # fmt: skip
    draft.tensors = made | parts
    unified, done = exported(draft)
    assert_same_function(unified, again(done, draft.verifier))


def test_an_mlp_draft_with_another_head_is_refused(mlp: Make) -> None:
    with pytest.raises(Refused, match="the draft has another of its own"):
        exported(with_own_head(mlp()))


def test_one_number_of_the_head_is_enough_to_refuse_it(mlp: Make) -> None:
    draft = with_verifiers_head(mlp())
    draft.tensors["lm_head.weight"][3, 5] += 1e-3
    with pytest.raises(Refused, match="the draft has another of its own"):
        exported(draft)


def test_the_heads_may_be_stored_in_different_dtypes(mlp: Make, verifier: Path) -> None:
    draft = with_verifiers_head(mlp())
    held = {name: t.half() for name, t in load_file(verifier / "model.safetensors").items()}
    save_file(held, verifier / "model.safetensors")
    draft.tensors["lm_head.weight"] = held["lm_head.weight"].float()
    assert exported(draft)[1].format == "eagle"


def test_sglangs_placeholder_is_dropped_when_it_is_converted_again(eagle: Make) -> None:
    draft = eagle(architectures=["LlamaForCausalLMEagle"])
    draft.tensors["fc.bias"] = torch.zeros(HIDDEN)
    converted = draft.convert()
    assert converted.config["fusion_bias"] is False
    assert "SGLang's fusion always has a bias" in converted.dropped["fc.bias"]


@pytest.mark.parametrize(
    ("architecture", "value", "flags"),
    [
        ("LlamaForCausalLM", 0.0, {}),  # nobody writes placeholders there: it was trained, or is at least meant
        ("LlamaForCausalLMEagle", 1e-30, {}),
        ("LlamaForCausalLMEagle", 0.0, {"fusion_bias": True}),
    ],
)
def test_no_other_bias_is_taken_for_a_placeholder(
    architecture: str, value: float, flags: dict[str, bool], eagle: Make
) -> None:
    draft = eagle(architectures=[architecture])
    draft.tensors["fc.bias"] = torch.full((HIDDEN,), value)
    assert draft.convert(**flags).config["fusion_bias"] is True
