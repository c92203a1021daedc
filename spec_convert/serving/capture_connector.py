"""The KV connector that hands out the verifier's hidden states: one safetensors file a request, on CPU and GPU.

vLLM's method `extract_hidden_states` keeps the states of the wanted layers in a KV cache of their own. When a request
has finished, its rows are gathered from there and written beside the next steps. The response's `kv_transfer_params`
names the file. Loaded by vLLM, with the arguments that `capture` makes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import torch
from torch import Tensor

from spec_convert.serving.capture import DTYPE, LAYERS, PATH, STORAGE
from spec_convert.serving.capture_files import Writers
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
    from vllm.v1.request import RequestStatus

if TYPE_CHECKING:
    from vllm.v1.attention.backend import AttentionMetadata
    from vllm.v1.core.kv_cache_manager import KVCacheBlocks
    from vllm.v1.core.sched.output import SchedulerOutput
    from vllm.v1.request import Request

NO_LONGER_WANTED = (RequestStatus.FINISHED_ABORTED, RequestStatus.FINISHED_IGNORED, RequestStatus.FINISHED_ERROR)
# Ways to divide one text among several workers, none of which then holds all of its states.
DIVIDING = ("pipeline_parallel_size", "prefill_context_parallel_size", "decode_context_parallel_size")


@dataclass(frozen=True, slots=True)
class Finished:
    """A request whose states lie complete in the cache, and where they are to be written."""

    request_id: str
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
        for way in DIVIDING:
            if getattr(vllm_config.parallel_config, way) > 1:
                raise ValueError(f"hidden states cannot be captured with {way} > 1: use tensor_parallel_size")
        self._group = group_of_states(kv_cache_config)
        self._block_size = kv_cache_config.kv_cache_groups[self._group].kv_cache_spec.block_size
        extra = self._kv_transfer_config.kv_connector_extra_config
        self._storage = Path(extra[STORAGE])
        assert vllm_config.speculative_config is not None, "without it vLLM keeps no hidden states"
        draft = vllm_config.speculative_config.draft_model_config.hf_config
        self._layer_ids = sorted(set(draft.eagle_aux_hidden_state_layer_ids))  # as vLLM takes them
        self._dtype: torch.dtype | None = getattr(torch, extra[DTYPE]) if extra.get(DTYPE) else None
        self._finished: list[Finished] = []
        self._cache: Tensor | None = None  # [blocks, layers, block size, H]
        self._writers: Writers | None = None
        self._stream: Any = None

    # What the scheduler calls

    def get_num_new_matched_tokens(self, request: Request, num_computed_tokens: int) -> tuple[int, bool]:
        return 0, False

    def update_state_after_alloc(self, request: Request, blocks: KVCacheBlocks, num_external_tokens: int) -> None:
        """Nothing is ever loaded."""

    def build_connector_meta(self, scheduler_output: SchedulerOutput) -> Handover:
        finished, self._finished = self._finished, []
        return Handover(finished=finished)

    def request_finished(self, request: Request, block_ids: list[int]) -> tuple[bool, dict[str, Any] | None]:
        """True: the blocks stay the request's until `get_finished` names it."""
        if request.status in NO_LONGER_WANTED or not request.prompt_token_ids:
            return False, None
        if request.num_computed_tokens < len(request.prompt_token_ids):
            return False, None  # preempted: its blocks are others' by now
        # Clients may choose the ids of requests, twice the same one or one with slashes.
        path = str(self._storage / f"{uuid4().hex}.safetensors")
        self._finished.append(Finished(request.request_id, tuple(request.prompt_token_ids), tuple(block_ids), path))
        return True, {PATH: path, LAYERS: self._layer_ids}

    def request_finished_all_groups(
        self, request: Request, block_ids: tuple[list[int], ...]
    ) -> tuple[bool, dict[str, Any] | None]:
        return self.request_finished(request, block_ids[self._group] if self._group < len(block_ids) else [])

    def get_finished_count(self) -> int:
        """Of the ranks, one alone reports a request: without this vLLM would wait for all of them."""
        return 1

    # What the worker calls

    def register_kv_caches(self, kv_caches: dict[str, Tensor]) -> None:
        (name,) = get_layers_from_vllm_config(self._vllm_config, CacheOnlyAttentionLayer, list(kv_caches))
        cache = self._cache = kv_caches[name]
        if cache.device.type not in ("cpu", "cuda"):
            raise ValueError(f"hidden states can be captured on CPUs and CUDA or ROCm GPUs, not on {cache.device.type}")
        if get_tensor_model_parallel_rank() == 0:  # all of them hold the same states
            self._storage.mkdir(parents=True, exist_ok=True)
            self._writers = Writers()

    def get_finished(self, finished_req_ids: set[str]) -> tuple[set[str] | None, set[str] | None]:
        """Gather what has finished. The gathering is ordered before all later steps, so the blocks are free at once."""
        metadata = self._get_connector_metadata() if self.has_connector_metadata() else None
        if self._writers is None or not isinstance(metadata, Handover):
            return None, None
        for one in metadata.finished:
            rows = self._gathered(one)
            self._writers.make_room(rows.nbytes)
            self._writers.submit(Path(one.path), one.token_ids, self._on_host(rows), rows.nbytes)
        return {one.request_id for one in metadata.finished} or None, None

    def shutdown(self) -> None:
        if self._writers is not None:
            self._writers.close()

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

    def _gathered(self, one: Finished) -> Tensor:
        """The states [T, layers, H], on the device of the cache, whose blocks may be parts of the scheduler's."""
        cache = self._cache
        assert cache is not None, "vLLM registers the caches before the first step"
        places = torch.arange(len(one.token_ids))
        blocks = torch.tensor(one.blocks)[places // self._block_size]
        slots = (blocks * self._block_size + places % self._block_size).to(cache.device, non_blocking=True)
        rows = cache[slots // cache.shape[2], :, slots % cache.shape[2]]
        return rows.to(self._dtype or rows.dtype)

    def _on_host(self, rows: Tensor) -> Callable[[], Tensor]:
        """The rows on their way to the CPU, beside the next steps; calling it waits until they are there."""
        if rows.device.type == "cpu":
            return lambda: rows
        self._stream = self._stream or torch.cuda.Stream(rows.device)  # type: ignore[no-untyped-call]
        host = torch.empty(rows.shape, dtype=rows.dtype, pin_memory=True)
        self._stream.wait_stream(torch.cuda.current_stream(rows.device))
        with torch.cuda.stream(self._stream):
            host.copy_(rows, non_blocking=True)
        rows.record_stream(self._stream)
        done = self._stream.record_event()

        def arrived() -> Tensor:
            done.synchronize()
            return host

        return arrived


def group_of_states(kv_cache_config: KVCacheConfig) -> int:
    """The group of the KV cache to which the hidden states belong: the only one, or one of their own."""
    groups = [group.kv_cache_spec for group in kv_cache_config.kv_cache_groups]
    own = [place for place, spec in enumerate(groups) if isinstance(spec, HiddenStateCacheSpec)]
    if len(groups) == 1:
        return 0
    if len(own) != 1:
        raise ValueError(
            f"{len(own)} of the {len(groups)} groups of vLLM's KV cache hold hidden states, not one: "
            "it cannot capture those of this kind of model"
        )
    return own[0]
