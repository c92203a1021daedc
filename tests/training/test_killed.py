"""A run of `generate` that is killed again and again ends with the very files of one that was left alone."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from spec_convert.training.store.manifest import NAME
from spec_convert.training.store.reading import open_store

from .small import HIDDEN, random_samples, write_prepared

pytestmark = pytest.mark.long  # as long as eleven runs

KILLS, SHARDS, PER_SHARD, LENGTH = 10, 200, 4, 24
# The imports take seconds, so they are done once: each run is a fork of this process. It says the run's process id,
# and when that has ended its status.
FORKING = """
import json, os, sys
import transformers.models.auto.modeling_auto, transformers.models.llama.modeling_llama
import spec_convert.training.capture.transformers_engine, spec_convert.training.tokenizer
from spec_convert.cli import run
for line in sys.stdin:
    child = os.fork()
    if not child:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os._exit(run(json.loads(line)))
    print(child, flush=True)
    print(os.waitpid(child, 0)[1], flush=True)
"""


@pytest.fixture(scope="module")
def data(verifier: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Samples of one length, so that a shard is four of them."""
    samples = random_samples([LENGTH] * SHARDS * PER_SHARD)
    return write_prepared(tmp_path_factory.mktemp("data") / "prepared", verifier, samples).folder


@pytest.fixture
def forking() -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", FORKING], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    yield process
    process.communicate()


def command(data: Path, output: Path) -> list[str]:
    size = PER_SHARD * LENGTH * 2 * HIDDEN * 2
    options = ["--layers", "2,6", "--engine", "transformers", "--shard-size", str(size)]
    return ["--quiet", "generate", str(data), str(output), *options]


def begun(forking: subprocess.Popen[str], arguments: list[str]) -> int:
    assert forking.stdin is not None
    forking.stdin.write(json.dumps(arguments) + "\n")
    forking.stdin.flush()
    return said(forking)


def said(forking: subprocess.Popen[str]) -> int:
    assert forking.stdout is not None
    return int(forking.stdout.readline())


def finished(output: Path) -> int:
    """How many shards the manifest names: it is whole at every instant."""
    path = output / NAME
    return len(json.loads(path.read_text())["shards"]) if path.exists() else 0


def killed(forking: subprocess.Popen[str], arguments: list[str], output: Path, chance: random.Random) -> int:
    """Killed at a random moment; returns how many shards were finished then."""
    run = begun(forking, arguments)
    wanted, deadline = finished(output) + chance.randint(0, 12), time.monotonic() + 120
    while finished(output) < wanted and time.monotonic() < deadline:
        time.sleep(0.001)
    time.sleep(chance.uniform(0, 0.02))
    os.kill(run, signal.SIGKILL)
    assert os.WTERMSIG(said(forking)) == signal.SIGKILL
    return finished(output)


def test_ten_kills_change_no_byte_and_lose_no_sample(
    data: Path, tmp_path: Path, forking: subprocess.Popen[str]
) -> None:
    out, undisturbed, chance = tmp_path / "out", tmp_path / "undisturbed", random.Random(7)
    done = [killed(forking, command(data, out), out, chance) for _ in range(KILLS)]
    assert done == sorted(done)
    assert len(set(done)) >= KILLS // 2, f"the kills came at the same places: {done}"
    assert 0 < done[-1] < SHARDS
    begun(forking, command(data, undisturbed))
    assert said(forking) == 0
    subprocess.run([sys.executable, "-m", "spec_convert", *command(data, out)], check=True, stdout=subprocess.DEVNULL)
    files = sorted(path.name for path in undisturbed.iterdir())
    assert files == [NAME, *(f"shard-{number:05}.safetensors" for number in range(SHARDS))]
    assert sorted(path.name for path in out.iterdir()) == files
    for name in files:
        assert (out / name).read_bytes() == (undisturbed / name).read_bytes()
    store = open_store(out)
    store.verify()
    assert [sample.index for sample in store] == list(range(SHARDS * PER_SHARD))
