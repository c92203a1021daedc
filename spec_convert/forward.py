"""The reference draft run on random input: do config and tensors make one function, finite and deterministic."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from spec_convert.detection import Detection, recognise
from spec_convert.errors import Refused
from spec_convert.findings import Finding
from spec_convert.models.errors import DraftError
from spec_convert.open import open_checkpoint
from spec_convert.plan import Plan
from spec_convert.rules import found
from spec_convert.third_party import own_model

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch
    from torch import Tensor

    from spec_convert.models.draft import Config, VerifierTensors

ROWS = 8  # tokens of the random sequence: enough for attention to have something to look at


def require_forward(folder: Path) -> None:
    """Run the unified directory ``folder`` as it lies on disk. Raises Refused when it does not compute."""
    import torch

    from spec_convert.models.load import read_torch

    detection = recognise(open_checkpoint(folder))
    checkpoint = detection.checkpoint
    tensors = {name: read_torch(checkpoint, name, torch.float32) for name in checkpoint}
    if findings := _run(detection, checkpoint.config or {}, tensors):
        raise Refused(findings)


def forward_findings(plan: Plan) -> list[Finding]:
    """What running the draft that ``plan`` would write shows, without writing it."""
    import torch

    from spec_convert.models.load import as_torch

    headers = plan.tensors
    tensors = {
        name: as_torch(array, headers[name].dtype, torch.float32)
        for step in plan.steps
        for name, array in plan.compute(step).items()
    }
    assert plan.config is not None, "the caller looks at the findings first"
    return _run(plan.detection, plan.config, tensors)


def _run(detection: Detection, config: Mapping[str, object], tensors: Mapping[str, Tensor]) -> list[Finding]:
    import torch

    where, own = "model.safetensors", detection.winner.own_type

    def trial() -> Tensor:
        random = torch.Generator().manual_seed(0)
        if own is not None:
            return own.trial(own_model(own, config, detection.provider)[0], tensors, random)
        return _trial(config, tensors, random)

    try:
        with torch.inference_mode():
            first, again = trial(), trial()
    except (DraftError, RuntimeError) as reason:  # RuntimeError: torch's word for shapes that do not fit
        return [found("forward-failed", where=where, message=str(reason))]
    if not bool(first.isfinite().all()):
        return [found("forward-not-finite", where=where, message="the logits hold NaN or infinities")]
    if not torch.equal(first, again):
        return [found("forward-failed", where=where, message="the same input gave other logits")]
    return []


def _trial(config: Mapping[str, object], tensors: Mapping[str, Tensor], random: torch.Generator) -> Tensor:
    """The logits of two steps, the second one fed with the states of the first."""
    import torch

    from spec_convert.models.draft import build_draft
    from spec_convert.unified import UNIFIED

    model = UNIFIED.validate_python(config)
    draft = build_draft(model, tensors, _stand_in(model, tensors, random)).eval()
    width, vocabulary = _input_sizes(model)
    ids = torch.randint(vocabulary, (1, ROWS), generator=random)
    states = torch.randn(1, ROWS, width, generator=random)
    first = draft(ids, states, fed_back=False)
    if not first.hidden_states.shape[-1]:  # a block of a single guess
        return first.logits
    second = draft(ids, first.hidden_states, fed_back=True)
    return torch.cat([first.logits, second.logits])


def _stand_in(config: Config, tensors: Mapping[str, Tensor], random: torch.Generator) -> VerifierTensors:
    """Random tables in place of the verifier's: whether the draft computes does not depend on their values."""
    import torch

    from spec_convert.models.draft import VerifierTensors, borrows
    from spec_convert.unified import BlockConfig, EagleMlpConfig, FusedConfig

    if isinstance(config, EagleMlpConfig):
        return VerifierTensors(embed_tokens=None, lm_head=None)
    layer, wanted = config.transformer_layer_config, borrows(config, tensors)
    width = (config.target_hidden_size if isinstance(config, FusedConfig | BlockConfig) else None) or layer.hidden_size
    table = torch.randn(layer.vocab_size, width, generator=random) * 0.02 if wanted else None
    return VerifierTensors(
        embed_tokens=table if "embed_tokens" in wanted else None, lm_head=table if "lm_head" in wanted else None
    )


def _input_sizes(config: Config) -> tuple[int, int]:
    """Width of the verifier's states as the draft takes them, and the vocabulary that tokens are drawn from."""
    from spec_convert.unified import BlockConfig, EagleMlpConfig, FusedConfig

    if isinstance(config, EagleMlpConfig):
        return config.hidden_size, config.vocab_size
    if isinstance(config, FusedConfig):
        fused = config.transformer_layer_config
        return fused.num_aux_hidden_states * (config.target_hidden_size or fused.hidden_size), fused.vocab_size
    layer = config.transformer_layer_config
    if isinstance(config, BlockConfig):
        states = len(config.aux_hidden_state_layer_ids)
        return states * (config.target_hidden_size or layer.hidden_size), layer.vocab_size
    return layer.hidden_size, layer.vocab_size
