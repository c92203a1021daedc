"""The verb `generate`: the hidden states of prepared conversations, from a model that runs here."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from spec_convert.errors import UsageError, unknown_name
from spec_convert.narration import say
from spec_convert.serving.capture import default_layers
from spec_convert.serving.versions import installed, require_vllm
from spec_convert.training.capture.engine import Engine
from spec_convert.training.capture.longest import require_readable
from spec_convert.training.capture.running import Captured, CaptureRequest, Layout, run_capture
from spec_convert.training.store.reading import open_store
from spec_convert.verifier import Verifier, open_verifier

if TYPE_CHECKING:
    from spec_convert.training.capture.batching import Batching

EngineName = Literal["transformers", "vllm"]
ENGINES: tuple[EngineName, ...] = get_args(EngineName)
INSTALL = "pip install 'spec-convert[train]'"
# Arguments of vLLM's `LLM` that may change when a run goes on: they say how it runs, not what it computes.
HOW_IT_RUNS = frozenset({
    "cpu_offload_gb", "disable_log_stats", "distributed_executor_backend", "download_dir", "enforce_eager",
    "gpu_memory_utilization", "max_model_len", "max_num_batched_tokens", "max_num_seqs", "swap_space",
})  # fmt: skip
COMPUTED = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}  # by the dtype of weights


def generate(  # noqa: PLR0913  the contract of the command line, flag by flag
    data: str | Path,
    output: str | Path,
    *,
    verifier: str | Path | None = None,
    engine: EngineName | None = None,
    layer_ids: tuple[int, ...] | None = None,
    dtype: str = "bfloat16",
    compute_dtype: str = "auto",
    max_samples: int | None = None,
    target_tokens: int | None = None,
    shard_bytes: int = 256_000_000,
    layout: Layout = "shards",
    batching: Batching | None = None,
    batch_tokens: int | None = None,
    device: str | None = None,
    tensor_parallel_size: int | None = None,
    llm_args: Mapping[str, Any] | None = None,
    verbose: bool = False,
) -> Captured:
    """Write the verifier's hidden states of the samples in ``data`` into ``output``, or go on with what is there.

    ``verifier`` is a folder or Hub id; None: the one that ``data`` was prepared for. ``engine``: None is vLLM where
    it is installed. ``layer_ids``: boundary ids, ascending; None: `2, N//2, N-3, N` of N layers. ``dtype``: of the
    states on disk. ``compute_dtype``: of the model; "auto" is that of its weights. ``batching``, ``batch_tokens``
    (tokens read at once) and ``device`` are for the engine transformers; ``tensor_parallel_size``, ``llm_args`` and
    ``verbose`` for vLLM. Raises Unreadable or UsageError.
    """
    chosen = _chosen(engine)
    of_transformers = {"--batching": batching, "--batch-tokens": batch_tokens, "--device": device}
    of_vllm = {"--tensor-parallel-size": tensor_parallel_size, "--llm-arg": llm_args, "--verbose": verbose}
    _refuse_given(of_transformers if chosen == "vllm" else of_vllm, engine=chosen)
    store = open_store(Path(data))
    opened = open_verifier(verifier or store.manifest.tokenizer.name)
    layers = layer_ids or default_layers(opened.num_hidden_layers)
    computed = _of_weights(opened) if compute_dtype == "auto" else compute_dtype
    request = CaptureRequest(
        data=Path(data), output=Path(output), verifier=opened, layer_ids=layers, dtype=dtype, shard_bytes=shard_bytes,
        max_samples=max_samples, target_tokens=target_tokens, layout=layout,
    )  # fmt: skip
    open_engine: Callable[[], AbstractContextManager[Engine]]
    if chosen == "vllm":
        from spec_convert.training.capture.vllm_engine import AHEAD, open_vllm_engine

        require_readable(store, opened, answers=True)
        open_engine = partial(
            open_vllm_engine, opened, layers, dtype=dtype, compute_dtype=computed, scratch=Path(output),
            tensor_parallel_size=tensor_parallel_size, llm_args=llm_args or {}, verbose=verbose,
            longest=int(store.lengths.max()) if len(store) else None,
        )  # fmt: skip
        versions, scratch_shards = {"vllm": require_vllm()}, AHEAD + 1
    else:
        from spec_convert.training.capture.transformers_engine import PACKAGES, open_transformers_engine

        open_engine = partial(
            open_transformers_engine, opened, layers, dtype=dtype, compute_dtype=computed,
            batching=batching or "padded", batch_tokens=batch_tokens or 2048, device=device,
        )  # fmt: skip
        versions, scratch_shards = {package: version(package) for package in PACKAGES}, 0
    made_with = {"engine": chosen, "compute_dtype": computed, **versions}
    if decides := {name: value for name, value in (llm_args or {}).items() if name not in HOW_IT_RUNS}:
        made_with["llm_args"] = json.dumps(decides, sort_keys=True)
    return run_capture(request, open_engine, made_with=made_with, scratch_shards=scratch_shards)


def _chosen(engine: EngineName | None) -> EngineName:
    """The engine that was asked for, or vLLM where it is installed: it is by far the fastest on a GPU."""
    if engine is None:
        engine = "vllm" if installed() else "transformers"
        say(f"The engine is {engine}")
    if engine not in ENGINES:
        raise unknown_name("engine", engine, ENGINES, "spec-convert generate --help")
    if engine == "vllm":
        require_vllm()
    elif find_spec("transformers") is None:
        raise UsageError("transformers is not installed", hint=INSTALL)
    return engine


def _refuse_given(flags: Mapping[str, object], *, engine: EngineName) -> None:
    other = "transformers" if engine == "vllm" else "vllm"
    for flag, value in flags.items():
        if value:
            raise UsageError(
                f"{flag} does nothing in the engine {engine}", hint=f"leave it out, or add --engine {other}"
            )


def _of_weights(verifier: Verifier) -> str:
    """The dtype of the verifier's token embedding, which stays as it was trained where layers are quantised."""
    stored = verifier.checkpoint.tensors[verifier.embedding_name].dtype
    if stored not in COMPUTED:
        raise UsageError(
            f"the weights of {verifier.name} are {stored}, in which nothing is computed",
            hint="say what to compute in: --compute-dtype bfloat16",
        )
    return COMPUTED[stored]
