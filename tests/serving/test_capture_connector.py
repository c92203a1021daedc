"""The connector between vLLM's scheduler and its worker: which requests are written, whole, right, and told of."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from spec_convert.errors import UsageError
from spec_convert.serving.capture import DTYPE, PATH, STORAGE
from spec_convert.serving.capture import LAYERS as IDS
from spec_convert.serving.captured import wait_for_states

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.skipif(find_spec("vllm") is None, reason="vllm is not installed: pip install 'spec-convert[vllm]'"),
]

BLOCKS, LAYERS, SIZE, HIDDEN = 20, 3, 4, 8
LAYER = "cache_only_layers.6"
PROMPT = list(range(40, 50))  # ten tokens: two whole blocks and half of one


def spec(*, hidden: bool = True, block_size: int = SIZE) -> Any:
    from vllm.v1.kv_cache_interface import FullAttentionSpec, HiddenStateCacheSpec

    kind = HiddenStateCacheSpec if hidden else FullAttentionSpec
    return kind(block_size=block_size, num_kv_heads=LAYERS, head_size=HIDDEN, dtype=torch.float32)


def caches(*specs: Any) -> Any:
    from vllm.v1.kv_cache_interface import KVCacheConfig, KVCacheGroupSpec

    groups = [KVCacheGroupSpec([f"layer {number}"], one) for number, one in enumerate(specs)]
    return KVCacheConfig(num_blocks=BLOCKS, kv_cache_tensors=[], kv_cache_groups=groups)


def config(storage: Path, *, dtype: str | None = None, **parallel: int) -> Any:
    """As much of vLLM's own as the connector reads."""
    from vllm.config import KVTransferConfig

    from spec_convert.serving import capture_connector

    ways = dict.fromkeys(capture_connector.DIVIDING, 1) | parallel
    transfer = KVTransferConfig(
        kv_connector="HiddenStatesConnector",
        kv_role="kv_producer",
        kv_connector_extra_config={STORAGE: str(storage), DTYPE: dtype},
    )
    layers = SimpleNamespace(hf_config=SimpleNamespace(eagle_aux_hidden_state_layer_ids=[2, 5, 6]))
    return SimpleNamespace(
        kv_transfer_config=transfer,
        parallel_config=SimpleNamespace(**ways),
        speculative_config=SimpleNamespace(draft_model_config=layers),
    )


def request(request_id: str = "a", *, computed: int = len(PROMPT), status: str = "FINISHED_LENGTH_CAPPED") -> Any:
    from vllm import SamplingParams
    from vllm.v1.request import Request, RequestStatus

    made = Request(request_id, list(PROMPT), SamplingParams(max_tokens=1), None)
    made.num_computed_tokens, made.status = computed, RequestStatus[status]
    return made


class Halves:
    """A scheduler's half and a worker's half, with a cache whose every number is another one."""

    def __init__(self, config: Any, cache_config: Any, cache: Tensor) -> None:
        from vllm.distributed.kv_transfer.kv_connector.v1.base import KVConnectorRole

        from spec_convert.serving.capture_connector import HiddenStatesConnector

        self.cache = cache
        self.scheduler = HiddenStatesConnector(config, KVConnectorRole.SCHEDULER, cache_config)
        self.worker = HiddenStatesConnector(config, KVConnectorRole.WORKER, cache_config)
        self.worker.register_kv_caches({LAYER: cache})

    def step(self) -> set[str]:
        """What a step of vLLM does with a connector. Returns whose blocks are free now."""
        metadata = self.scheduler.build_connector_meta(SimpleNamespace())  # type: ignore[arg-type]
        self.worker.bind_connector_metadata(metadata)
        finished, _ = self.worker.get_finished({one.request_id for one in metadata.finished})
        self.worker.clear_connector_metadata()
        return finished or set()

    def rows(self, blocks: list[int], size: int = SIZE) -> Tensor:
        """[T, LAYERS, HIDDEN] as they lie in these blocks of the scheduler."""
        slots = [block * size + place for block in blocks for place in range(size)][: len(PROMPT)]
        shape = self.cache.shape[2]
        return torch.stack([self.cache[slot // shape, :, slot % shape] for slot in slots])


@pytest.fixture
def halves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Halves]]:
    from spec_convert.serving import capture_connector

    monkeypatch.setattr(
        capture_connector, "get_layers_from_vllm_config", lambda config, kind, names: dict.fromkeys(names)
    )
    monkeypatch.setattr(capture_connector, "get_tensor_model_parallel_rank", lambda: 0)
    made: list[Halves] = []

    def make(cache_config: Any = None, *, dtype: str | None = None, shape: tuple[int, ...] = ()) -> Halves:
        shape = shape or (BLOCKS, LAYERS, SIZE, HIDDEN)
        cache = torch.randn(shape, generator=torch.Generator().manual_seed(1))
        made.append(Halves(config(tmp_path, dtype=dtype), cache_config or caches(spec()), cache))
        return made[-1]

    yield make
    for one in made:
        one.worker.shutdown()


def finish(halves: Halves, one: Any, blocks: list[int]) -> Path:
    """The file that the response names."""
    held, parameters = halves.scheduler.request_finished_all_groups(one, (blocks,))
    assert held
    assert parameters is not None
    assert parameters[IDS] == [2, 5, 6]
    return Path(parameters[PATH])


def test_a_finished_request_is_written_with_its_tokens_before_its_blocks_are_anothers(
    halves: Callable[..., Halves],
) -> None:
    both = halves()
    path = finish(both, request("a"), [7, 2, 11])
    expected = both.rows([7, 2, 11])
    assert both.step() == {"a"}
    both.cache.zero_()  # the next request's
    ids, states = wait_for_states(path, timeout=30)
    assert ids.tolist() == PROMPT
    assert torch.equal(states, expected)
    assert both.step() == set()


def test_the_states_are_stored_in_the_wanted_dtype(halves: Callable[..., Halves]) -> None:
    both = halves(dtype="bfloat16")
    path = finish(both, request(), [1, 2, 3])
    both.step()
    assert torch.equal(wait_for_states(path, timeout=30)[1], both.rows([1, 2, 3]).bfloat16())


def test_a_cache_whose_blocks_are_parts_of_the_schedulers_is_read_right(halves: Callable[..., Halves]) -> None:
    both = halves(caches(spec(block_size=2 * SIZE)))
    path = finish(both, request(), [6, 3])
    both.step()
    assert torch.equal(wait_for_states(path, timeout=30)[1], both.rows([6, 3], 2 * SIZE))


def test_whatever_a_request_is_called_it_has_a_file_of_its_own(halves: Callable[..., Halves], tmp_path: Path) -> None:
    both = halves()
    ids = ["same", "same", "../../etc/passwd", "a/b.c", "x" * 300]
    paths = [finish(both, request(request_id), [1 + place, 8, 9]) for place, request_id in enumerate(ids)]
    assert both.step() == set(ids)
    for place, path in enumerate(paths):
        assert path.parent == tmp_path
        assert torch.equal(wait_for_states(path, timeout=30)[1], both.rows([1 + place, 8, 9]))


@pytest.mark.parametrize(
    "one",
    [
        {"status": "FINISHED_ABORTED"},
        {"status": "FINISHED_ABORTED", "computed": 3},
        {"status": "FINISHED_IGNORED"},
        {"status": "FINISHED_ERROR"},
        {"computed": 0},
        {"computed": len(PROMPT) - 1},
    ],
)
def test_nothing_is_written_of_what_nobody_waits_for_or_was_not_read(
    halves: Callable[..., Halves], tmp_path: Path, one: dict[str, Any]
) -> None:
    both = halves()
    assert both.scheduler.request_finished_all_groups(request(**one), ([1, 2, 3],)) == (False, None)
    assert both.step() == set()
    both.worker.shutdown()
    assert list(tmp_path.iterdir()) == []


def test_one_rank_writes_and_is_the_only_one_that_vllm_waits_for(
    halves: Callable[..., Halves], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("spec_convert.serving.capture_connector.get_tensor_model_parallel_rank", lambda: 1)
    both = halves()
    finish(both, request(), [1, 2, 3])
    assert both.step() == set()
    assert both.scheduler.get_finished_count() == 1
    assert list(tmp_path.iterdir()) == []


def test_states_beyond_their_dtype_are_an_error_that_the_reader_sees(halves: Callable[..., Halves]) -> None:
    both = halves(dtype="float16")
    both.cache[2] *= 1e6
    path = finish(both, request(), [1, 2, 3])
    both.step()
    with pytest.raises(UsageError, match="not all of the states are finite numbers in float16"):
        wait_for_states(path, timeout=30)


def test_when_not_even_the_reason_can_be_written_the_engine_does_not_go_on(halves: Callable[..., Halves]) -> None:
    both = halves()
    finish(both, request(), [1, 2, 3]).with_suffix(".partial").mkdir()
    both.step()
    both.worker.shutdown()
    finish(both, request(), [1, 2, 3])
    with pytest.raises(OSError, match="Is a directory"):
        both.step()


def test_the_engine_waits_when_the_disk_is_too_far_behind(
    halves: Callable[..., Halves], monkeypatch: pytest.MonkeyPatch
) -> None:
    from spec_convert.serving import capture_files

    both, written, behind = halves(), [], []

    def slowly(path: Path, token_ids: Sequence[int], states: Callable[[], Tensor]) -> None:
        time.sleep(0.02)
        written.append(path)

    def gathered(one: Any) -> Tensor:
        behind.append(len(behind) - len(written))
        return both.rows([1, 2, 3])

    monkeypatch.setattr(capture_files, "write", slowly)
    monkeypatch.setattr(both.worker, "_gathered", gathered)
    monkeypatch.setattr(capture_files, "MOST_WAITING", 2 * both.rows([1, 2, 3]).nbytes)
    for number in range(8):
        finish(both, request(str(number)), [1, 2, 3])
    both.step()
    assert behind[0] == 0
    assert max(behind) <= 2


def test_the_states_group_is_found_or_the_model_refused(tmp_path: Path) -> None:
    from spec_convert.serving.capture_connector import group_of_states

    assert group_of_states(caches(spec(hidden=False))) == 0
    assert group_of_states(caches(spec(hidden=False), spec(), spec(hidden=False))) == 1
    with pytest.raises(ValueError, match="0 of the 2 groups"):
        group_of_states(caches(spec(hidden=False), spec(hidden=False)))


def test_texts_that_are_divided_among_workers_are_refused(tmp_path: Path) -> None:
    from vllm.distributed.kv_transfer.kv_connector.v1.base import KVConnectorRole

    from spec_convert.serving.capture_connector import DIVIDING, HiddenStatesConnector

    for way in DIVIDING:
        with pytest.raises(ValueError, match=f"with {way} > 1"):
            HiddenStatesConnector(config(tmp_path, **{way: 2}), KVConnectorRole.SCHEDULER, caches(spec()))
