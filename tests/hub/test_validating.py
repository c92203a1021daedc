"""`validate` of a Hub id: at level `headers` a large sharded draft costs its headers and its vocabulary map."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import Tensor

from spec_convert import validate
from spec_convert.findings import Depth

from ..tiny import Sizes
from .server import FakeHub

SHARDS = 8
LARGE = Sizes(hidden=256, inner=896, heads=4, kv_heads=2, head_dim=64, vocabulary=128256, draft_vocabulary=32000)


def sharded(tensors: dict[str, Tensor], config: dict[str, Any]) -> dict[str, bytes]:
    """A repository's files: as even shards as the tensors allow, and their index."""
    piles: list[dict[str, Tensor]] = [{} for _ in range(SHARDS)]
    for name, tensor in sorted(tensors.items(), key=lambda item: -item[1].numel()):
        min(piles, key=lambda pile: sum(t.nbytes for t in pile.values()))[name] = tensor
    names = [f"model-{number:05}-of-{SHARDS:05}.safetensors" for number in range(1, SHARDS + 1)]
    files = {name: save(pile) for name, pile in zip(names, piles, strict=True)}
    placed = {tensor: name for name, pile in zip(names, piles, strict=True) for tensor in pile}
    index = {"metadata": {}, "weight_map": placed}
    return files | {
        "model.safetensors.index.json": json.dumps(index).encode(),
        "config.json": json.dumps(config).encode(),
    }


def test_a_draft_of_eight_shards_is_validated_for_less_than_two_megabytes(hub: FakeHub, verifier: Path) -> None:
    config = LARGE.llama(draft_vocab_size=LARGE.draft_vocabulary)
    tensors = LARGE.eagle3() | LARGE.embedding()
    files = sharded(tensors, config)
    assert all(len(files[name]) > 0 for name in files)
    assert sum(map(len, files.values())) > 150e6
    hub.publish("org/large", files)
    hub.publish("org/verifier", {"config.json": json.dumps(LARGE.llama(num_hidden_layers=32)).encode()})

    [checked] = validate("org/large", verifier="org/verifier").checked

    assert checked.format == "eagle3"
    assert checked.reached is Depth.HEADERS
    assert [finding for finding in checked.findings if finding.level != "note"] == []
    assert hub.served() < 2e6
    assert len({request.path for request in hub.asked(".safetensors")}) == SHARDS
    assert all(request.range for request in hub.asked(".safetensors") if request.served)


def test_a_broken_map_in_a_shard_is_seen_without_downloading_the_weights(hub: FakeHub) -> None:
    tensors = LARGE.eagle3()
    tensors["d2t"][5] = tensors["d2t"][4] - 1  # row 5 stands for the token of row 4
    hub.publish("org/large", sharded(tensors, LARGE.llama(draft_vocab_size=LARGE.draft_vocabulary)))
    [checked] = validate("org/large").checked
    assert [finding.rule for finding in checked.findings if finding.level == "error"] == ["d2t-inconsistent"]
    assert hub.served() < 2e6
