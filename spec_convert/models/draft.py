"""From a unified config and its tensors to a draft that computes: every tensor used once, every parameter filled."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor

from spec_convert.models.contract import Draft, DraftOutput, VerifierTensors
from spec_convert.models.dflash import DFlashDraft
from spec_convert.models.dspark import DSparkDraft
from spec_convert.models.eagle import EagleDraft
from spec_convert.models.eagle3 import Eagle3Draft
from spec_convert.models.errors import DraftError
from spec_convert.models.mlp import MlpDraft
from spec_convert.models.mtp import MtpDraft
from spec_convert.models.peagle import PEagleDraft
from spec_convert.models.vocabulary import OwnVocabulary
from spec_convert.unified import (
    AnyConfig,
    BlockConfig,
    DFlashConfig,
    DSparkConfig,
    Eagle3Config,
    EagleConfig,
    EagleMlpConfig,
    FusedConfig,
    MtpConfig,
    PEagleConfig,
)

__all__ = ["Draft", "DraftError", "DraftOutput", "VerifierTensors", "borrows", "build_draft"]

Config = AnyConfig
# Those that may take tables of the verifier.
MODULES: Mapping[type[Config], Callable[..., Draft]] = {
    EagleConfig: EagleDraft,
    Eagle3Config: Eagle3Draft,
    PEagleConfig: PEagleDraft,
    DFlashConfig: DFlashDraft,
    DSparkConfig: DSparkDraft,
    MtpConfig: MtpDraft,
}


def build_draft(config: Config, tensors: Mapping[str, Tensor], verifier: VerifierTensors | None = None) -> Draft:
    """The draft of this config with these tensors: the very tensors, not copies, so their dtype is its dtype."""
    with torch.device("meta"):  # the weights come from outside: do not draw random ones first
        draft = _empty(config, tensors, verifier)
    _refuse_unfit(draft, tensors)
    draft.load_state_dict(dict(tensors), assign=True)
    if isinstance(draft, OwnVocabulary) and draft.reduced:
        _refuse_bad_vocabulary(draft)
    return draft


def borrows(config: Config, names: Iterable[str]) -> frozenset[str]:
    """Which of the verifier's tensors (``embed_tokens``, ``lm_head``) a draft with these tensor names needs."""
    own = {name.removesuffix(".weight") for name in names}
    match config:
        case EagleConfig():
            return frozenset({"embed_tokens"} - own | {"lm_head"})
        case FusedConfig() | BlockConfig():
            full = config.draft_vocab_size == config.transformer_layer_config.vocab_size
            return frozenset(({"embed_tokens", "lm_head"} if full else {"embed_tokens"}) - own)
        case EagleMlpConfig():
            return frozenset()
        case MtpConfig():
            return frozenset({"embed_tokens", "lm_head"})


def _empty(config: Config, names: Iterable[str], verifier: VerifierTensors | None) -> Draft:
    shared: dict[str, Tensor | None] = {"embed_tokens": None, "lm_head": None}
    for name in borrows(config, names):
        shared[name] = getattr(verifier, name, None)
        if shared[name] is None:
            raise DraftError(
                f"the draft shares its verifier's {name}, which was not given", hint="pass verifier=, the base model"
            )
    return MlpDraft(config) if isinstance(config, EagleMlpConfig) else MODULES[type(config)](config, **shared)


def _refuse_unfit(draft: Draft, tensors: Mapping[str, Tensor]) -> None:
    wanted = draft.state_dict()
    wrong = [f"{name} is missing" for name in sorted(wanted.keys() - tensors.keys())]
    wrong += [f"{name} belongs to nothing in this config" for name in sorted(tensors.keys() - wanted.keys())]
    for name in sorted(wanted.keys() & tensors.keys()):
        have, want = tensors[name], wanted[name]
        if have.shape != want.shape:
            wrong.append(f"{name} is {list(have.shape)}, the config says {list(want.shape)}")
        elif have.dtype != want.dtype and not (have.is_floating_point() and want.is_floating_point()):
            wrong.append(f"{name} is {have.dtype}, must be {want.dtype}")
    if wrong:
        raise DraftError("; ".join(wrong), hint="compare config.json with `spec-convert inspect` of the same folder")


def _refuse_bad_vocabulary(draft: OwnVocabulary) -> None:
    """A map that leaves the vocabulary, or says a token twice, computes something: only never the right thing."""
    ids, size = draft.target_ids(), draft.t2d.shape[0]
    if not bool(((ids >= 0) & (ids < size)).all()):
        raise DraftError(f"d2t maps draft tokens outside the verifier's vocabulary of {size}")
    said = torch.zeros_like(draft.t2d).index_fill(0, ids, True)
    if int(said.sum()) != len(ids):
        raise DraftError("d2t maps two draft tokens to one token of the verifier")
    if not torch.equal(said, draft.t2d):
        raise DraftError("t2d does not mark the tokens that d2t maps to")
