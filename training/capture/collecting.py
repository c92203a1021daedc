"""`collect`: the loop of `generate`, with states that others compute: running servers, or files that are there."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

from spec_convert.errors import UsageError
from spec_convert.narration import say
from spec_convert.training.capture.longest import require_readable
from spec_convert.training.capture.plan import plan_capture
from spec_convert.training.capture.rank_files import FileEngine, find_states
from spec_convert.training.capture.running import Captured, CaptureRequest, run_capture
from spec_convert.training.capture.server_engine import Files, ServerEngine, captured_layers
from spec_convert.training.capture.states import Wanted
from spec_convert.training.servers.endpoints import Endpoints
from spec_convert.training.store.reading import open_store


def collect_from_servers(request: CaptureRequest, endpoints: Endpoints, files: Files) -> Captured:
    """Without ``layer_ids`` in ``request``, those that the servers say they capture. Raises UsageError."""
    model = endpoints.model()
    if model != request.verifier.name:
        say(f"the servers call their model {model}: its states are taken for those of {request.verifier.name}")
    require_readable(open_store(request.data), request.verifier, context=endpoints.context, answers=True)
    request = replace(request, layer_ids=_agreed(request.layer_ids, captured_layers(endpoints, model, files)))
    engine = ServerEngine(endpoints, model, files, _wanted(request))
    return run_capture(request, lambda: nullcontext(engine), made_with={"engine": engine.name, "model": model})


def collect_files(request: CaptureRequest, folder: Path, *, rank: int | None) -> Captured:
    """From the files below ``folder``; of those of several ranks, ``rank``'s alone if it is given. Raises UsageError.

    Nothing is written unless every planned sample is in one of them.
    """
    if not request.layer_ids:
        raise UsageError("the files do not say which layers they hold", hint="name them: --layers 2,15,27,30")
    found = find_states(folder, rank=rank)
    prepared = open_store(request.data)
    plan = plan_capture(
        prepared, bytes_per_token=request.bytes_per_token, shard_bytes=request.shard_bytes,
        max_samples=request.max_samples, target_tokens=request.target_tokens,
    )  # fmt: skip
    places = [place for shard in plan.shards for place in shard]
    missing = [number for number, place in enumerate(places) if not found.of(prepared[place].input_ids.tolist())]
    if missing:
        before = f"--max-samples {missing[0]} takes those before the first" if missing[0] else "look for other files"
        raise UsageError(
            f"{len(missing):,} of {len(places):,} samples are in no file below {folder}, sample "
            f"{prepared[places[missing[0]]].index} first",
            hint=before,
        )
    engine = FileEngine(found, _wanted(request))
    return run_capture(request, lambda: nullcontext(engine), made_with={"engine": engine.name, "files": str(folder)})


def _agreed(asked: Sequence[int], captured: Sequence[int] | None) -> tuple[int, ...]:
    """The layers of the states: never a guess."""
    if captured is None and not asked:
        raise UsageError(
            "the servers do not say which layers they capture", hint="name them as they were given: --layers 2,15,27,30"
        )
    if captured is not None and asked and tuple(asked) != tuple(captured):
        ours, theirs = (",".join(map(str, ids)) for ids in (asked, captured))
        raise UsageError(
            f"the servers capture the layers {theirs}, not {ours}",
            hint=f"leave --layers out, or start them with: spec-convert serve --capture MODEL --layers {ours}",
        )
    return tuple(asked or captured or ())


def _wanted(request: CaptureRequest) -> Wanted:
    return Wanted(request.layer_ids, request.verifier.hidden_size, request.dtype)
