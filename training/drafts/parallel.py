"""Fresh P-EAGLE drafts: EAGLE-3 ones with an embedding that trains, and a mask for what is not known yet."""

from __future__ import annotations

from dataclasses import replace

import torch

from spec_convert.errors import UsageError
from spec_convert.models.draft import Draft, build_draft
from spec_convert.models.eagle3 import Eagle3Draft
from spec_convert.narration import say
from spec_convert.training.drafts import eagle3
from spec_convert.training.drafts.wanted import Wanted
from spec_convert.unified import UNIFIED
from spec_convert.verifier import Verifier

HEEDS = eagle3.HEEDS - {"fc_norm", "norm_output"} | {"mask_token_id"}  # servers read those two of EAGLE-3
LAYERS = 4  # as its authors have them: one pass that guesses everything needs more depth than a chain of passes


def parallel(wanted: Wanted) -> Draft:
    """What `eagle3.own_head` makes, with an embedding of its own, in which the row of the mask must learn.

    Raises UsageError when no token can be the mask.
    """
    shape, mask = wanted.shape, mask_token(wanted)
    wanted = replace(wanted, shape=shape.updated(num_hidden_layers=shape.num_hidden_layers or LAYERS))
    plain = eagle3.own_head(wanted)
    assert isinstance(plain, Eagle3Draft)
    own = {"embed_requires_grad": True, "mask_token_id": mask}
    config = UNIFIED.validate_python(plain.config.model_dump() | wanted.envelope("peagle", "PEagleSpeculator") | own)
    tensors = plain.state_dict() | {
        "embed_tokens.weight": plain.embed_tokens.weight.detach().clone(),
        "mask_hidden": torch.randn(1, 1, plain.fc.in_features, generator=wanted.generator),
    }
    return build_draft(config, tensors)


def mask_token(wanted: Wanted) -> int:
    """The chosen one, else the token that pads the verifier's texts. Raises UsageError when texts hold that one too."""
    verifier, chosen = wanted.verifier, wanted.shape.mask_token_id
    if chosen is not None:
        if chosen >= verifier.vocab_size:
            raise UsageError(f"mask_token_id is {chosen}, and {verifier.name} has {verifier.vocab_size} tokens")
        return chosen
    hint = "choose one that no text holds, such as a reserved one: `mask_token_id = N` in `--draft-config FILE`"
    pad = verifier.text_config.get("pad_token_id")
    if type(pad) is not int or not 0 <= pad < verifier.vocab_size:
        raise UsageError(
            f"a P-EAGLE draft needs a mask token, and {verifier.name} names no token for padding", hint=hint
        )
    if pad in _ends(verifier):
        raise UsageError(
            f"a P-EAGLE draft needs a mask token, and the one that pads texts of {verifier.name}, {pad}, ends them too",
            hint=hint,
        )
    say(f"The mask is token {pad}, which pads texts of {verifier.name}")
    return pad


def _ends(verifier: Verifier) -> list[object]:
    """Multimodal models may say it beside the config of their language model."""
    said = [config.get("eos_token_id") for config in (verifier.config, verifier.text_config)]
    return [token for one in said for token in (one if isinstance(one, list) else [one])]
