"""The KV connector that hands out the verifier's hidden states: one safetensors file a request, on CPU and GPU.

vLLM's method `extract_hidden_states` keeps the states of the wanted layers in a KV cache of their own. When a request
has finished, its rows are gathered from there and written by a thread, under a temporary name until they are complete.
The response's `kv_transfer_params` names the file. Loaded by vLLM, with the arguments that `capture` makes.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from spec_convert.serving.capture import DTYPE, PATH, STORAGE, failure_of
from spec_convert.serving.versions import needed

with needed():
    from vllm.config import VllmConfig, get_layers_from_vllm_config
    from vllm.distributed.kv_transfer.kv_connector.v1.base import (
        KVConnectorBase_V1,
        KVConnectorMetadata,
        KVConnectorRole,
        SupportsHMA,
    )
    from vllm.distributed.parallel_state import get_tensor_model_parallel_rank
    from vllm.model_executor.models.extract_hidden_states import CacheOnlyAttentionLayer
    from vllm.v1.kv_cache_interface import HiddenStateCacheSpec, KVCacheConfig

if TYPE_CHECKING:
    from vllm.v1.attention.backend import AttentionMetadata
    from vllm.v1.core.kv_cache_manager import KVCacheBlocks
    from vllm.v1.core.sched.output import SchedulerOutput
    from vllm.v1.request import Request

WRITERS = 4  # threads: a disk is slower than a GPU, and safetensors lets go of the interpreter while it writes


@dataclass(frozen=True, slots=True)
class Finished:
    """A request whose states lie complete in the cache, and where they are to be written."""

    token_ids: tuple[int, ...]
    blocks: tuple[int, ...]
    path: str


@dataclass
class Handover(KVConnectorMetadata):
    """From the scheduler to the workers, with the next step."""

    finished: list[Finished] = field(default_factory=list)


class HiddenStatesConnector(KVConnectorBase_V1, SupportsHMA):
    """The scheduler's half notes which requests have finished, the worker's half writes their states."""

    def __init__(self, vllm_config: VllmConfig, role: KVConnectorRole, kv_cache_config: KVCacheConfig) -> None:
        super().__init__(vllm_config=vllm_config, role=role, kv_cache_config=kv_cache_config)
        self._group = group_of_states(kv_cache_config)
        assert vllm_config.kv_transfer_config is not None, "without it vLLM makes no connector"
        extra = vllm_config.kv_transfer_config.kv_connector_extra_config
        self._storage = Path(extra[STORAGE])
        self._dtype: torch.dtype | None = getattr(torch, extra[DTYPE]) if extra.get(DTYPE) else None
        self._finished: list[Finished] = []
        self._cache: Tensor | None = None  # [blocks, layers, block size, H]
        self._writers: ThreadPoolExecutor | None = None
        self._stream: Any = None

    # What the scheduler calls

    def get_num_new_matched_tokens(self, request: Request, num_computed_tokens: int) -> tuple[int, bool]:
        return 0, False

    def update_state_after_alloc(self, request: Request, blocks: KVCacheBlocks, num_external_tokens: int) -> None:
        assert num_external_tokens == 0, "states are only written here, never read back"

    def build_connector_meta(self, scheduler_output: SchedulerOutput) -> Handover:
        finished, self._finished = self._finished, []
        return Handover(finished=finished)

    def request_finished(self, request: Request, block_ids: list[int]) -> tuple[bool, dict[str, Any] | None]:
        """True: the blocks stay the request's until `get_finished` has read them."""
        if not request.prompt_token_ids or request.num_computed_tokens < len(request.prompt_token_ids):
            return False, None  # aborted before all of the text was read
        path = str(self._storage / f"{request.request_id}.safetensors")
        self._finished.append(Finished(tuple(request.prompt_token_ids), tuple(block_ids), path))
        return True, {PATH: path}

    def request_finished_all_groups(
        self, request: Request, block_ids: tuple[list[int], ...]
    ) -> tuple[bool, dict[str, Any] | None]:
        if self._group >= len(block_ids):
            return False, None  # never scheduled
        return self.request_finished(request, block_ids[self._group])

    def get_finished_count(self) -> int:
        """Of the ranks, one alone reports a request: without this vLLM would wait for all of them."""
        return 1

    # What the worker calls

    def register_kv_caches(self, kv_caches: dict[str, Tensor]) -> None:
        layers = get_layers_from_vllm_config(self._vllm_config, CacheOnlyAttentionLayer, list(kv_caches))
        (name,) = layers
        self._cache = kv_caches[name]
        # All tensor-parallel ranks hold the same states.
        if get_tensor_model_parallel_rank() == 0:
            self._storage.mkdir(parents=True, exist_ok=True)
            self._writers = ThreadPoolExecutor(WRITERS, thread_name_prefix="hidden-states")

    def get_finished(self, finished_req_ids: set[str]) -> tuple[set[str] | None, set[str] | None]:
        """Gather what has finished. The copy is ordered before all later steps, so the blocks are free at once."""
        if self._writers is None:
            return None, None
        metadata = self._get_connector_metadata() if self.has_connector_metadata() else None
        finished = metadata.finished if isinstance(metadata, Handover) else []
        for one in finished:
            self._writers.submit(write, Path(one.path), one.token_ids, self._gathered(one), self._dtype)
        return {Path(one.path).stem for one in finished} or None, None

    def shutdown(self) -> None:
        if self._writers is not None:
            self._writers.shutdown()

    def start_load_kv(self, *arguments: Any, **named: Any) -> None:
        """Nothing is ever loaded."""

    def wait_for_layer_load(self, layer_name: str) -> None:
        """Nothing is ever loaded."""

    def save_kv_layer(self, layer_name: str, kv_layer: Tensor, attn_metadata: AttentionMetadata, **named: Any) -> None:
        """The cache holds the states already; they leave it when the request has finished."""

    def wait_for_save(self) -> None:
        """A step does not wait: the gathering is ordered after it, and the writing happens beside the next ones."""

    @classmethod
    def get_required_kvcache_layout(cls, vllm_config: VllmConfig) -> str | None:  # noqa: ARG003  (vLLM's signature)
        return "LBNHC"  # a token's states lie together

    def _gathered(self, one: Finished) -> Callable[[], Tensor]:
        """The states [T, layers, H], on their way to the CPU; calling it waits until they are there."""
        cache = self._cache
        assert cache is not None, "vLLM registers the caches before the first step"
        size = cache.shape[2]
        places = torch.arange(len(one.token_ids))
        blocks = torch.tensor(one.blocks)[places // size]
        if cache.device.type == "cpu":
            rows = cache[blocks, :, places % size]
            return lambda: rows
        rows = cache[blocks.to(cache.device, non_blocking=True), :, (places % size).to(cache.device, non_blocking=True)]
        return self._copied(rows)

    def _copied(self, rows: Tensor) -> Callable[[], Tensor]:
        """Onto the host beside the next step, through pinned memory."""
        self._stream = self._stream or torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            rows = rows.to(self._dtype or rows.dtype)
            host = torch.empty(rows.shape, dtype=rows.dtype, pin_memory=True)
            host.copy_(rows, non_blocking=True)
        rows.record_stream(self._stream)
        done = torch.cuda.Event()  # type: ignore[no-untyped-call]
        done.record(self._stream)

        def wait() -> Tensor:
            done.synchronize()
            return host

        return wait


def group_of_states(kv_cache_config: KVCacheConfig) -> int:
    """The group of the KV cache to which the hidden states belong: the only one, or one of their own."""
    groups = [group.kv_cache_spec for group in kv_cache_config.kv_cache_groups]
    own = [place for place, spec in enumerate(groups) if isinstance(spec, HiddenStateCacheSpec)]
    if len(groups) == 1:
        return 0
    if len(own) != 1:
        raise ValueError(f"{len(own)} of the {len(groups)} groups of the KV cache hold hidden states, not one")
    return own[0]


def write(path: Path, token_ids: tuple[int, ...], states: Callable[[], Tensor], dtype: torch.dtype | None) -> None:
    """One request's file, whole or not at all. Whoever waits for it is told when it cannot be written."""
    from safetensors.torch import save_file

    partial = path.with_suffix(".partial")
    try:
        rows = states()
        save_file(
            {"hidden_states": rows.to(dtype or rows.dtype).contiguous(), "token_ids": torch.tensor(token_ids)}, partial
        )
        partial.rename(path)
    except Exception as error:
        partial.unlink(missing_ok=True)
        failure_of(path).write_text(f"{type(error).__name__}: {error}", encoding="utf-8")
