"""The main job: from a published draft checkpoint to a unified directory, planned, written and accounted for."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_args

from spec_convert.detection import Detection, recognise
from spec_convert.errors import Unreadable, UsageError
from spec_convert.findings import Finding
from spec_convert.formats import Counting, Request
from spec_convert.narration import say
from spec_convert.open import open_checkpoint
from spec_convert.plan import Plan, make_plan
from spec_convert.shards import shard_size
from spec_convert.source_hashes import SourceHashes, hashes_of_parts
from spec_convert.verifier import Verifier, open_verifier, verifier_of
from spec_convert.writer import write

DTYPES = {"float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16"}
SCHEMA_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """A conversion that happened, or with ``written=False`` its dry run."""

    output: Path
    plan: Plan
    seconds: float
    written: bool = True
    pushed_to: str | None = None

    @property
    def format(self) -> str:
        return self.plan.detection.format

    @property
    def findings(self) -> tuple[Finding, ...]:
        return self.plan.findings

    def to_json(self) -> dict[str, Any]:
        """The contract of `convert --json`."""
        return {
            "output": str(self.output),
            **self.plan.to_json(),
            "seconds": round(self.seconds, 3),
            "written": self.written,
            "pushed_to": self.pushed_to,
        }


def convert(  # noqa: PLR0913  the contract of the command line, flag by flag
    source: str | Path,
    output: str | Path,
    *,
    verifier: str | Path | None = None,
    revision: str | None = None,
    format: str | None = None,  # noqa: A002
    layernorms: bool | None = None,
    fusion_bias: bool | None = None,
    norm_before_residual: bool | None = None,
    aux_layer_ids: Sequence[int] | None = None,
    aux_layer_convention: Counting | None = None,
    rope_theta: float | None = None,
    speculative_tokens: int | None = None,
    dtype: str | None = None,
    max_shard_size: int | str | None = None,
    validate: bool = False,
    dry_run: bool = False,
    force: bool = False,
    push_to_hub: str | None = None,
) -> Conversion:
    """Turn the draft checkpoint at ``source`` into a unified directory ``output``.

    ``source`` and ``verifier`` are folders or Hub ids; ``verifier`` may be left out when the checkpoint names its own.
    Flags that are None are decided by the checkpoint. ``aux_layer_ids`` are boundary ids; ``aux_layer_convention`` says
    how the checkpoint's own, or its trainer's default, are counted. Weights above ``max_shard_size`` (bytes, or words
    such as "5GB"; None: 50 GB) are written in several files. ``validate`` also runs the reference draft before the
    directory gets its name. Raises Unreadable, Refused (with every finding) or UsageError; nothing is left in
    ``output`` then.
    """
    started = time.monotonic()
    checkpoint = open_checkpoint(source, revision=revision)
    say(f"Converting {source}")
    detection = recognise(checkpoint, forced=format)
    with SourceHashes(checkpoint, wanted=not dry_run, weights=not detection.inside_target) as hashes:
        say(f"Loaded {len(checkpoint.tensors)} weights ({checkpoint.container}), format {detection.format}")
        request = Request(
            verifier=choose_verifier(detection, verifier),
            layernorms=layernorms,
            fusion_bias=fusion_bias,
            norm_before_residual=norm_before_residual,
            aux_layer_ids=_layer_ids(aux_layer_ids),
            aux_layer_convention=_convention(aux_layer_convention, aux_layer_ids),
            rope_theta=rope_theta,
            speculative_tokens=speculative_tokens,
            dtype=dtype_code(dtype),
            max_shard_size=shard_size(max_shard_size),
        )
        plan = make_plan(detection, request).require_clean()
        target, pushed = Path(output), None
        if not dry_run:
            if push_to_hub:
                _check_push(push_to_hub)
            check = _forward if validate else None
            write(plan, target, provenance=lambda: provenance(plan, hashes.result()), force=force, check=check)
            say(f"Saved to: {target}")
            pushed = _push(target, push_to_hub) if push_to_hub else None
    return Conversion(
        output=target, plan=plan, seconds=time.monotonic() - started, written=not dry_run, pushed_to=pushed
    )


def provenance(plan: Plan, hashes: Mapping[str, str]) -> dict[str, Any]:
    """conversion.json: where every tensor came from and why every fact is what it is. No times, no random names."""
    detection, request = plan.detection, plan.request
    verifier = request.verifier
    return {
        "schema_version": SCHEMA_VERSION,
        "source": {
            "id": detection.checkpoint.source,
            "revision": detection.checkpoint.files.revision,
            "sha256": dict(hashes),
            **_hashes_of_the_part(plan),
        },
        "verifier": {"id": verifier.name, "revision": verifier.files.revision} if verifier else None,
        "format": detection.format,
        "evidence": {
            "confidence": detection.confidence,
            "for": list(detection.evidence.supports),
            "against": list(detection.evidence.against),
        },
        "flags": request.flags,
        "tensors": plan.tensors_json(),
        "findings": [finding.to_json() for finding in plan.findings],
        "versions": {"spec_convert": version("spec-convert"), "format_provider": detection.provider},
    }


def _hashes_of_the_part(plan: Plan) -> dict[str, Any]:
    """Of a target as large as it may be only what was read."""
    detection = plan.detection
    if not detection.inside_target:
        return {}
    return {"sha256_of_tensors": hashes_of_parts(detection.checkpoint.files, plan.used)}


def choose_verifier(detection: Detection, given: str | Path | None) -> Verifier:
    """The verifier that was given, else the one that a unified directory names itself, or that the draft is inside.

    Raises Refused for a draft that would not be converted whatever its verifier is.
    """
    if detection.winner.unconverted is not None:
        make_plan(detection, Request()).require_clean()
    if given is None and detection.inside_target:
        return verifier_of(detection.checkpoint)
    if given is not None:
        source = detection.checkpoint.source
        if detection.inside_target:
            return open_verifier(given)
        if os.path.exists(given) and os.path.exists(source) and os.path.samefile(given, source):
            raise UsageError("SOURCE and verifier are one folder", hint="`--verifier` names the model, not the draft")
        return open_verifier(given)
    nested = detection.checkpoint.get("speculators_config")
    reference = nested.get("verifier") if isinstance(nested, dict) else None
    name = reference.get("name_or_path") if isinstance(reference, dict) else None
    if not name:
        raise UsageError(
            "the checkpoint does not say which model it was trained for",
            hint="name it with `--verifier`, a folder or a Hub id",
        )
    return open_verifier(str(name))


def _layer_ids(ids: Sequence[int] | None) -> tuple[int, ...] | None:
    if ids is None:
        return None
    if not all(isinstance(layer, int) and not isinstance(layer, bool) for layer in ids):
        raise UsageError(f"aux_layer_ids {list(ids)!r} are not layer numbers", hint="whole numbers such as 2, 16, 29")
    return tuple(ids)


def _convention(convention: Counting | None, ids: Sequence[int] | None) -> Counting | None:
    """How layer ids are counted. Raises UsageError where it would say nothing."""
    if convention not in (None, *get_args(Counting)):
        raise UsageError(f"there is no convention `{convention}` of layer ids", hint="`boundary` or `output`")
    if convention is not None and ids is not None:
        raise UsageError(
            "layer ids given by hand are boundary ids: no convention applies to them",
            hint="give `--aux-layer-ids` or `--aux-layer-convention`",
        )
    return convention


def dtype_code(name: str | None) -> str | None:
    """The code of safetensors for a dtype as users name it. Raises UsageError for other names."""
    if name is None:
        return None
    if name not in DTYPES:
        raise UsageError(f"there is no dtype `{name}`", hint=f"one of {', '.join(DTYPES)}")
    return DTYPES[name]


def _forward(folder: Path) -> None:
    from spec_convert.forward import require_forward

    say("Validating …")
    require_forward(folder)
    say("Forward pass successful")


def _check_push(repo_id: str) -> None:
    from spec_convert.hub import check_push

    check_push(repo_id)


def _push(folder: Path, repo_id: str) -> str:
    from spec_convert.hub import push

    try:
        url = push(folder, repo_id)
    except Unreadable as problem:
        raise UsageError(f"{folder} is written but not pushed: {problem.message}", hint=problem.hint) from problem
    say(f"Pushed to: {url}")
    return url


class EagleConverter:
    """The interface of the speculators library's EAGLE converter, for people and scripts that come from there."""

    def convert(  # noqa: PLR0913  the signature that scripts of that library call
        self,
        input_path: str | Path,
        output_path: str | Path,
        base_model: str,
        *,
        layernorms: bool | None = None,
        fusion_bias: bool | None = None,
        validate: bool = True,
    ) -> Conversion:
        """Convert ``input_path`` for the verifier ``base_model``; see `convert`."""
        return convert(
            input_path,
            output_path,
            verifier=base_model,
            layernorms=layernorms,
            fusion_bias=fusion_bias,
            validate=validate,
        )
