"""`spec-convert serve --capture` and `spec-convert collect`, each a process, with a real vLLM that is killed once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from spec_convert.training.store.manifest import NAME
from spec_convert.training.store.reading import open_store

from ..training.small import random_samples, write_prepared, write_verifier
from .real_vllm import ENVIRONMENT
from .test_serve_command import free_port

pytestmark = [pytest.mark.long, pytest.mark.vllm]

COMMAND = Path(sys.executable).with_name("spec-convert")
LAYERS = (2, 3, 6)
LENGTHS = [4 + 37 * number % 200 for number in range(800)]
CONCURRENT = 4
VLLM_OPTIONS = ["--dtype", "float32", "--max-model-len", "256", "--enforce-eager"]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """`serve(verifier, port=8001)`: a capturing server, with all that it starts in a process group of its own."""
    started: list[subprocess.Popen[bytes]] = []

    def start(verifier: Path, *, port: int) -> subprocess.Popen[bytes]:
        ours = ["--layers", ",".join(map(str, LAYERS)), "--dtype", "float32", "--storage", str(tmp_path / "states")]
        options = ["--host", "127.0.0.1", "--port", str(port), *VLLM_OPTIONS]
        started.append(
            subprocess.Popen(
                [COMMAND, "serve", "--capture", verifier, *ours, "--", *options],
                env=os.environ | ENVIRONMENT, start_new_session=True,
            )
        )  # fmt: skip
        return started[-1]

    yield start
    for process in started:
        kill(process)


def kill(server: subprocess.Popen[bytes]) -> None:
    """At once, with every process that it has started."""
    if server.poll() is None:
        os.killpg(server.pid, signal.SIGKILL)
    server.wait()


def finished_shards(output: Path) -> int:
    manifest = output / NAME
    return len(json.loads(manifest.read_text())["shards"]) if manifest.exists() else 0


def test_a_killed_server_that_comes_back_costs_nothing(serve: Any, tmp_path: Path) -> None:
    verifier, data, output = (tmp_path / name for name in ("verifier", "prepared", "out"))
    write_verifier(verifier)
    samples = random_samples(LENGTHS)
    write_prepared(data, verifier, samples)
    port = free_port()

    server = serve(verifier, port=port)
    options = ["--endpoint", f"http://127.0.0.1:{port}", "--concurrent-requests", str(CONCURRENT), "--patience", "5m"]
    options += ["--dtype", "float32", "--shard-size", "2MB"]
    said = tmp_path / "said"
    with said.open("w") as err:
        collecting = subprocess.Popen([COMMAND, "collect", data, output, *options], stderr=err)
    try:
        while not finished_shards(output):  # the timeout of the test ends this
            assert collecting.poll() is None, said.read_text()
            assert server.poll() is None
            time.sleep(0.02)
        kill(server)
        assert collecting.poll() is None, "all was collected before the server could be killed"
        there = finished_shards(output)
        serve(verifier, port=port)
        assert collecting.wait() == 0, said.read_text()
    finally:
        collecting.kill()
        collecting.wait()

    lines = said.read_text()
    assert lines.count("does not answer, and is tried again") == 2  # at first, and after the kill
    assert lines.count("is back") == 2
    store = open_store(output)
    store.verify()
    assert len(store.manifest.shards) > there
    assert store.manifest.layers is not None
    assert store.manifest.layers.ids == LAYERS
    assert [sample.index for sample in store] == list(range(len(samples)))
    left = list((tmp_path / "states").glob("*.safetensors"))
    assert len(left) <= CONCURRENT, "read files are removed; those of the requests that were under way may be left"
    reference = Reference(verifier)
    for sample, stored in zip(samples, store, strict=True):
        assert torch.equal(stored.input_ids, sample.input_ids)
        assert torch.equal(stored.loss_mask, sample.loss_mask)
        expected = reference.states(sample.input_ids)
        assert stored.hidden_states is not None
        assert (stored.hidden_states - expected).norm() < 1e-4 * expected.norm()


class Reference:
    """The same states from transformers: what enters each layer, and what enters the final norm."""

    def __init__(self, verifier: Path) -> None:
        from transformers import AutoModelForCausalLM

        self._model = AutoModelForCausalLM.from_pretrained(verifier, dtype=torch.float32).eval()

    def states(self, input_ids: Tensor) -> Tensor:
        """[T, layers, H]"""
        entered: dict[int, Tensor] = {}
        modules = [*self._model.model.layers, self._model.model.norm]
        hooks = [
            modules[layer].register_forward_pre_hook(
                lambda _, args, kwargs, layer=layer: entered.update({layer: (*args, *kwargs.values())[0]}),
                with_kwargs=True,
            )
            for layer in LAYERS
        ]
        with torch.no_grad():
            self._model(input_ids[None])
        for hook in hooks:
            hook.remove()
        return torch.stack([entered[layer][0] for layer in LAYERS], dim=1)
