"""A draft on disk: the unified directory that a conversion would have written, looked at before it gets its name."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from spec_convert.conversion import DTYPES
from spec_convert.conversion import provenance as account
from spec_convert.detection import recognise
from spec_convert.errors import Refused, UsageError
from spec_convert.findings import errors
from spec_convert.formats import Request
from spec_convert.models.contract import Borrowed, Draft
from spec_convert.models.draft import Config
from spec_convert.open import open_checkpoint
from spec_convert.operations import Header
from spec_convert.plan import Plan, make_plan
from spec_convert.rules import found
from spec_convert.shards import WEIGHTS
from spec_convert.staging import staged
from spec_convert.tensor import BITS
from spec_convert.unified import Eagle3Config
from spec_convert.validation.as_served import served_findings, unrepaired
from spec_convert.verifier import Verifier
from spec_convert.writer import header_bytes

Dtype = Literal["float32", "bfloat16", "float16"]
CODES = {torch.int64: "I64", torch.bool: "BOOL"}


def save_draft(  # noqa: PLR0913  what a checkpoint is made of, each by name
    draft: Draft,
    folder: Path,
    *,
    verifier: Verifier,
    provenance: Mapping[str, Any],
    dtype: Dtype,
    with_head: bool = False,
    force: bool = False,
) -> None:
    """`write_draft` for a draft that lies whole in this process. The draft itself stays as it is."""
    tensors = state_of(draft, draft.state_dict(), with_head=with_head)
    config: Any = draft.config
    write_draft(config, tensors, folder, verifier=verifier, trained=provenance, dtype=dtype, force=force)


def state_of(draft: Draft, state: Mapping[str, Tensor], *, with_head: bool) -> dict[str, Tensor]:
    """The tensors of a checkpoint, not copied: ``state`` is the draft's whole `state_dict()`, gathered if need be.

    ``with_head``: add the head where it is the verifier's. EAGLE-1 has no place for it, which raises UsageError.
    """
    if not (with_head and isinstance(draft.lm_head, Borrowed)):
        return dict(state)
    if not isinstance(draft.config, Eagle3Config):
        raise UsageError("only EAGLE-3 checkpoints have a place for the verifier's head", hint="save it without")
    return {**state, "lm_head.weight": draft.head}


def write_draft(  # noqa: PLR0913  what a checkpoint is made of, each by name
    config: Config,
    tensors: Mapping[str, Tensor],
    folder: Path,
    *,
    verifier: Verifier,
    trained: Mapping[str, Any],
    dtype: Dtype,
    force: bool,
) -> None:
    """Write the unified directory ``folder``: config.json, model.safetensors and conversion.json.

    Floats are cast to ``dtype``, one tensor at a time. ``trained`` goes into conversion.json as it is: JSON values. The
    directory appears whole, and only if servers read it as it is meant. Raises Refused otherwise, or when a weight is
    not finite in ``dtype``; UsageError when ``folder`` cannot be written, or is there and ``force`` is not given.
    """
    with staged(folder, untouchable=[verifier.files], force=force) as staging:
        _write_weights(tensors, staging / WEIGHTS, dtype)
        _write_json(staging / "config.json", config.model_dump(mode="json") | {"torch_dtype": dtype})
        plan = _plan(staging, verifier).require_clean()
        (staging / "config.json").write_text(plan.config_text, encoding="utf-8")
        _write_json(staging / "conversion.json", account(plan, {}) | {"source": None, "trained": dict(trained)})
        _require_served(_plan(staging, verifier))


def _plan(staging: Path, verifier: Verifier) -> Plan:
    """What converting the directory once more would do: complete its config at first, and then nothing."""
    detection = recognise(open_checkpoint(staging))
    if not detection.winner.is_unified(detection.checkpoint):
        raise UsageError(
            f"the draft would be taken for `{detection.format}` (from {detection.provider}), not for a unified one",
            hint="switch that plugin off with SPEC_CONVERT_DISABLE",
        )
    return make_plan(detection, Request(verifier=verifier))


def _require_served(plan: Plan) -> None:
    findings = [*unrepaired(plan.findings), *served_findings(plan)]
    if errors(findings):
        raise Refused(findings)


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _write_weights(tensors: Mapping[str, Tensor], path: Path, dtype: Dtype) -> None:
    """In the order of conversions: wide elements first, then by name."""
    headers = {
        name: Header(DTYPES[dtype] if tensor.is_floating_point() else CODES[tensor.dtype], tuple(tensor.shape))
        for name, tensor in tensors.items()
    }
    headers = dict(sorted(headers.items(), key=lambda one: (-BITS[one[1].dtype], one[0])))
    with path.open("wb") as out:
        out.write(header_bytes(headers))
        for name in headers:
            out.write(_bytes(name, tensors[name], dtype))


def _bytes(name: str, tensor: Tensor, dtype: Dtype) -> memoryview:
    """Raises Refused for numbers that are not finite, or not in ``dtype``."""
    plain = tensor.detach()
    if plain.is_floating_point():
        if not bool(plain.isfinite().all()):
            raise Refused([found("not-finite", where=name, message="holds a NaN or an infinity")])
        plain = plain.to(getattr(torch, dtype))
        if not bool(plain.isfinite().all()):
            message, hint = f"holds a number too large for {dtype}", "save it in bfloat16 or float32"
            raise Refused([found("value-lost", where=name, message=message, hint=hint)])
    return plain.cpu().contiguous().view(torch.uint8).numpy().data
