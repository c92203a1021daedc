"""A draft that is to be made, and what the builders of all kinds share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from spec_convert.errors import UsageError
from spec_convert.models.draft import Draft, VerifierTensors, build_draft
from spec_convert.training.drafts.shape import DraftShape
from spec_convert.training.drafts.weights import fresh
from spec_convert.verifier import Verifier

Vocabulary = tuple[Tensor, Tensor]  # d2t [Vd] int64, offsets, and t2d [V] bool


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """``vocabulary`` None: the verifier's whole one. The generator is the source of all that is random."""

    verifier: Verifier
    shape: DraftShape
    vocabulary: Vocabulary | None
    generator: torch.Generator
    speculative_tokens: int

    def envelope(self, unified_type: str, architecture: str) -> dict[str, Any]:
        """What every unified config holds. What servers need beyond is added when the draft is saved."""
        method = {
            "proposal_type": "greedy",
            "speculative_tokens": self.speculative_tokens,
            "verifier_accept_k": 1,
            "accept_tolerance": 0.0,
        }
        return {
            "architectures": [architecture],
            "speculators_model_type": unified_type,
            "speculators_version": "0.9.0",
            "speculators_config": {
                "algorithm": unified_type,
                "default_proposal_method": "greedy",
                "proposal_methods": [method],
                "verifier": {"name_or_path": self.verifier.name, "architectures": self.verifier.architectures},
            },
            "tie_word_embeddings": False,
            "torch_dtype": "float32",
        }

    def filled(self, empty: Draft, given: Mapping[str, Tensor], shared: VerifierTensors | None) -> Draft:
        """A draft like ``empty``, of whose tensors only the shapes are read, with the ``given`` weights or fresh ones.

        ``shared``: the tables of the verifier that it borrows.
        """
        shapes = {name: tensor.shape for name, tensor in empty.state_dict().items()}
        config: Any = empty.config
        return build_draft(config, fresh(shapes, given, self.generator), shared)

    def require_width(self, width: int, what: str) -> None:
        theirs = self.verifier.hidden_size
        if width != theirs:
            raise UsageError(
                f"hidden_size is {width}, and {what} of {self.verifier.name} is {theirs} wide",
                hint="leave hidden_size out, or give `--draft eagle3`, which may have its own",
            )

    def refuse_vocabulary(self) -> None:
        if self.vocabulary is not None:
            raise UsageError("drafts of this kind know the verifier's whole vocabulary", hint="leave d2t and t2d out")


def draft_vocab_size(wanted: Wanted) -> int:
    """That of the given map, or the verifier's. Raises UsageError for a map that does not fit the verifier."""
    whole, chosen = wanted.verifier.vocab_size, wanted.shape.draft_vocab_size
    if wanted.vocabulary is None:
        if chosen not in (None, whole):
            raise UsageError(
                f"a draft vocabulary of {chosen} needs the map of its tokens",
                hint="`spec-convert vocab` makes one: give `--d2t-path` and `--t2d-path`",
            )
        return whole
    _require_map(wanted.vocabulary, wanted.verifier)
    size = len(wanted.vocabulary[0])
    if chosen not in (None, size):
        raise UsageError(f"draft_vocab_size is {chosen}, and the map has {size} tokens", hint="give one that fits it")
    return size


def target_ids(vocabulary: Vocabulary) -> Tensor:
    """[Vd] the verifier's id of each token of the draft."""
    d2t, _ = vocabulary
    return torch.arange(len(d2t)) + d2t


def _require_map(vocabulary: Vocabulary, verifier: Verifier) -> None:
    d2t, t2d = vocabulary
    whole = verifier.vocab_size
    if d2t.dtype != torch.int64 or t2d.dtype != torch.bool or d2t.dim() != 1 or t2d.shape != (whole,):
        found = f"d2t is {d2t.dtype} {list(d2t.shape)}, t2d {t2d.dtype} {list(t2d.shape)}"
        raise UsageError(
            f"the vocabulary map does not fit {verifier.name}: {found}",
            hint=f"d2t must be int64 [draft tokens], t2d bool [{whole}], as `spec-convert vocab` writes them",
        )
    marked = t2d.nonzero()[:, 0]
    if len(d2t) >= whole or not torch.equal(target_ids(vocabulary).sort().values, marked):
        raise UsageError(
            f"d2t and t2d do not name the same part of the {whole} tokens of {verifier.name}",
            hint="take both from one run of `spec-convert vocab`; for the whole vocabulary leave them out",
        )
