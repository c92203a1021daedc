"""One run of `generate` or `collect`: what is checked and said before the start, the loop, and what came of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, Literal, cast

from spec_convert.errors import UsageError
from spec_convert.narration import progress, say
from spec_convert.serving.capture import require_layers
from spec_convert.training.capture.capturing import Sink, capture
from spec_convert.training.capture.engine import Engine
from spec_convert.training.capture.estimate import ITEM_BYTES, readable, require_space, size_of
from spec_convert.training.capture.identity import digest_of, identity_of
from spec_convert.training.capture.longest import require_readable
from spec_convert.training.capture.plan import CapturePlan, plan_capture
from spec_convert.training.store.manifest import LayerFacts, Manifest, TokenizerFacts
from spec_convert.training.store.reading import Store, open_store
from spec_convert.training.store.writing import writing
from spec_convert.training.tokenizer import facts_of, open_tokenizer
from spec_convert.verifier import Verifier

Layout = Literal["shards", "pt"]
# Of what a caller says of its engine, what the numbers depend on; the rest, versions, is for people.
DETERMINING = ("engine", "compute_dtype", "llm_args")


@dataclass(frozen=True, kw_only=True)
class CaptureRequest:
    """``data``: what `prepare` wrote. ``layer_ids``: boundary ids, ascending. ``dtype``: of the stored states.

    ``shard_bytes``: about how many bytes of states make up a shard. ``layout`` "pt": the community's files instead.
    """

    data: Path
    output: Path
    verifier: Verifier
    layer_ids: tuple[int, ...]
    dtype: str
    shard_bytes: int
    max_samples: int | None = None
    target_tokens: int | None = None
    layout: Layout = "shards"

    @property
    def bytes_per_token(self) -> int:
        """Of the states alone: layers times hidden size times the bytes of a number."""
        return len(self.layer_ids) * self.verifier.hidden_size * ITEM_BYTES[self.dtype]


@dataclass(frozen=True, kw_only=True)
class Captured:
    """``samples``, ``tokens`` and ``bytes`` of the whole output; ``new_tokens`` took ``seconds`` in this run.

    The seconds are those of the capture itself, without the start of the engine. ``state_bytes_per_token``: what the
    states alone take, beside which token ids, masks and file headers are small.
    """

    output: str
    engine: str
    samples: int
    tokens: int
    left_out: dict[str, int]
    shards: int
    bytes: int
    state_bytes_per_token: int
    new_tokens: int
    seconds: float

    @property
    def bytes_per_token(self) -> float:
        return self.bytes / self.tokens

    @property
    def tokens_per_second(self) -> float | None:
        """None when everything was there already."""
        return self.new_tokens / self.seconds if self.new_tokens else None

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"bytes_per_token": self.bytes_per_token, "tokens_per_second": self.tokens_per_second}


def run_capture(
    request: CaptureRequest,
    open_engine: Callable[[], AbstractContextManager[Engine]],
    *,
    made_with: Mapping[str, str],
    scratch_shards: int = 0,
) -> Captured:
    """Capture what ``request`` asks for and is not there yet. The engine is opened only when something is left.

    ``made_with`` names the ``engine``, its ``compute_dtype`` where that is known, and the versions that go into the
    manifest. A run goes on only with data of the same engine and compute dtype; batches may become smaller when memory
    did not suffice: they change nothing but the last bits. ``scratch_shards``: of how many shards the engine keeps the
    states in the output too, until they are written. Raises UsageError.
    """
    require_layers(request.layer_ids, request.verifier.num_hidden_layers)
    prepared, tokenizer = _prepared(request)
    plan = plan_capture(
        prepared, bytes_per_token=request.bytes_per_token, shard_bytes=request.shard_bytes,
        max_samples=request.max_samples, target_tokens=request.target_tokens,
    )  # fmt: skip
    if not plan.samples:
        raise UsageError(f"{request.data} holds no samples", hint="prepare conversations with answers in them")
    manifest = _manifest(request, prepared, tokenizer, plan, made_with)
    states = plan.tokens * request.bytes_per_token
    say(f"{plan.samples:,} samples, {plan.tokens:,} tokens: {readable(states)} of states in {len(plan.shards)} shards")
    scratch = scratch_shards * max(plan.shard_tokens) * request.bytes_per_token
    require_space(request.output, states, layers=len(request.layer_ids), scratch=scratch)
    with _sink(request, manifest, plan) as sink:
        new_tokens, seconds = _run(request, prepared, plan, open_engine, sink)
    return Captured(
        output=str(request.output), engine=made_with["engine"], samples=plan.samples, tokens=plan.tokens,
        left_out=plan.left_out, shards=len(plan.shards), bytes=size_of(request.output),
        state_bytes_per_token=request.bytes_per_token, new_tokens=new_tokens, seconds=seconds,
    )  # fmt: skip


def _run(
    request: CaptureRequest,
    prepared: Store,
    plan: CapturePlan,
    open_engine: Callable[[], AbstractContextManager[Engine]],
    sink: Sink,
) -> tuple[int, float]:
    """The tokens that were left, and the seconds that they took."""
    left = sum(tokens for number, tokens in enumerate(plan.shard_tokens) if number not in sink.done)
    if not left:
        say(f"{request.output} is finished: nothing is left to do")
        return 0, 0.0
    if sink.done:
        say(f"{len(sink.done)} of {len(plan.shards)} shards are there already: {left:,} tokens are left")
    with open_engine() as engine, progress(left, unit="token", aloud=True) as advance:
        started = time.perf_counter()
        capture(prepared, plan.shards, engine, sink, on_tokens=advance)
        return left, time.perf_counter() - started


def _prepared(request: CaptureRequest) -> tuple[Store, TokenizerFacts]:
    """The data, once it is clear that this verifier can read it, and the verifier's tokenizer."""
    prepared = open_store(request.data)
    if prepared.manifest.kind != "prepared":
        raise UsageError(
            f"{request.data} holds hidden states already", hint="give the folder that `spec-convert prepare` wrote"
        )
    verifier, theirs = request.verifier, prepared.manifest.tokenizer
    ours = facts_of(open_tokenizer(verifier), verifier)
    if ours.fingerprint != theirs.fingerprint:
        raise UsageError(
            f"{request.data} was prepared with the tokenizer of {theirs.name}, and that of {verifier.name} is another",
            hint=f"prepare the conversations anew: spec-convert prepare … --verifier {verifier.name}",
        )
    require_readable(prepared, verifier)
    return prepared, ours


def _manifest(
    request: CaptureRequest,
    prepared: Store,
    tokenizer: TokenizerFacts,
    plan: CapturePlan,
    made_with: Mapping[str, str],
) -> Manifest:
    verifier = request.verifier
    determining = {key: made_with[key] for key in DETERMINING if key in made_with}
    return Manifest(
        kind="hidden_states",
        request={
            "data": digest_of(shard.sha256 for shard in prepared.manifest.shards),
            "verifier": identity_of(verifier),
            "layers": list(request.layer_ids),
            "dtype": request.dtype,
            "max_samples": request.max_samples,
            "target_tokens": request.target_tokens,
            "shard_bytes": request.shard_bytes,
            **determining,
        },
        tokenizer=tokenizer,
        layers=LayerFacts(
            ids=request.layer_ids, num_hidden_layers=verifier.num_hidden_layers, hidden_size=verifier.hidden_size,
            dtype=cast(Any, request.dtype),  # looked at when the manifest is made
        ),
        made_with={"verifier": verifier.name, "data": str(request.data.absolute()), **made_with},
        counts={"samples": plan.samples, "tokens": plan.tokens, **plan.left_out},
        planned_shards=len(plan.shards),
    )  # fmt: skip


def _sink(request: CaptureRequest, manifest: Manifest, plan: CapturePlan) -> AbstractContextManager[Sink]:
    if request.layout == "shards":
        return writing(request.output, manifest)
    from spec_convert.training.store.community_writing import writing_pt

    sizes: Sequence[int] = list(map(len, plan.shards))
    return writing_pt(request.output, manifest, firsts=list(accumulate(sizes[:-1], initial=0)))
