"""Reading the states of one request: whole files only, and the writer's words when there are none."""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterator
from pathlib import Path
from threading import Timer

import pytest
import torch
from safetensors.torch import save_file

from spec_convert.errors import UsageError
from spec_convert.serving.capture import failure_of
from spec_convert.serving.captured import wait_for_states

IDS, STATES = torch.tensor([5, 6, 7]), torch.arange(24.0).reshape(3, 2, 4)


def save(path: Path, **changes: torch.Tensor) -> None:
    save_file({"token_ids": IDS, "hidden_states": STATES} | changes, path)


@pytest.fixture
def later() -> Iterator[list[Timer]]:
    """What happens while the reader waits."""
    timers: list[Timer] = []
    yield timers
    for timer in timers:
        timer.join()


def start(timers: list[Timer], timer: Timer) -> None:
    timers.append(timer)
    timer.start()


def test_a_file_that_comes_later_is_waited_for(tmp_path: Path, later: list[Timer]) -> None:
    path, partial = tmp_path / "a.safetensors", tmp_path / "a.partial"
    save(partial)
    start(later, Timer(0.05, partial.rename, [path]))
    ids, states = wait_for_states(path, timeout=30)
    path.unlink()
    assert torch.equal(ids, IDS)
    assert torch.equal(states, STATES)


def test_a_locked_file_is_not_read_before_the_lock_is_let_go(tmp_path: Path, later: list[Timer]) -> None:
    path = tmp_path / "a.safetensors"
    save(path, hidden_states=torch.zeros(3, 2, 4))  # what a reader would see too early
    lock = os.open(f"{path}.lock", os.O_CREAT | os.O_WRONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)

    def finish() -> None:
        save(path)
        os.close(lock)

    start(later, Timer(0.05, finish))
    assert torch.equal(wait_for_states(path, timeout=30)[1], STATES)


def test_a_lock_that_is_let_go_without_a_file_is_a_failure_at_once(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    Path(f"{path}.lock").touch()
    with pytest.raises(UsageError, match="stopped writing"):
        wait_for_states(path, timeout=600)


def test_the_writers_own_words_come_through_at_once(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    failure_of(path).write_text("OSError: No space left on device")
    with pytest.raises(UsageError, match=f"could not write the hidden states {path}: OSError: No space left on device"):
        wait_for_states(path, timeout=600)


@pytest.mark.parametrize(("folder", "hint"), [(".", "the server's log"), ("elsewhere", "no folder .*elsewhere")])
def test_what_does_not_come_in_time_is_named(tmp_path: Path, folder: str, hint: str) -> None:
    with pytest.raises(UsageError, match=r"a\.safetensors have not come within 0\.05 seconds") as refused:
        wait_for_states(tmp_path / folder / "a.safetensors", timeout=0.05)
    assert re.search(hint, refused.value.hint)


def test_a_damaged_file_and_another_content_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save(path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UsageError, match="no hidden states that can be read"):
        wait_for_states(path, timeout=1)
    save_file({"hidden_states": STATES}, path)
    with pytest.raises(UsageError, match="token_ids"):
        wait_for_states(path, timeout=1)
    save(path, token_ids=IDS[:2])
    with pytest.raises(UsageError, match=r"token_ids \[2\] and hidden_states \[3, 2, 4\]"):
        wait_for_states(path, timeout=1)
