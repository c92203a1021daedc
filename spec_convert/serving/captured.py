"""Reading the hidden states of one request, which a connector writes while the response is already on its way."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from spec_convert.errors import UsageError
from spec_convert.serving.capture import failure_of

if TYPE_CHECKING:
    from torch import Tensor

FIRST_PAUSE, LONGEST_PAUSE = 0.001, 0.1  # seconds between two looks


def wait_for_states(path: Path, *, timeout: float) -> tuple[Tensor, Tensor]:
    """The token ids [T] and states [T, L, H] of one request, as soon as the file ``path`` is complete.

    Two kinds of writers are understood: ours, whose file appears complete or not at all, and vLLM's own
    `ExampleHiddenStatesConnector`, which holds a lock on `<path>.lock` while it writes. The tensors keep the file
    mapped; it may be removed. Raises UsageError with the writer's own words when it failed, when nothing has come
    after ``timeout`` seconds, and when what has come cannot be read.
    """
    end, pause = time.monotonic() + timeout, FIRST_PAUSE
    while not _is_complete(path):
        if time.monotonic() >= end:
            raise _absent(path, timeout)
        time.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE)
    return _read(path)


def _is_complete(path: Path) -> bool:
    """Raises UsageError when the writer has given up."""
    if failure_of(path).exists():
        why = failure_of(path).read_text(encoding="utf-8", errors="replace")
        raise UsageError(
            f"vLLM could not write the hidden states {path}: {why}",
            hint="mend what it says, or let it write to another folder, and run the same command again",
        )
    lock = path.with_name(f"{path.name}.lock")
    if not lock.exists():
        return path.exists()
    if not _is_free(lock):
        return False
    if not path.exists():  # the lock was taken before the response was sent, and is let go of after the writing
        raise UsageError(f"vLLM stopped writing the hidden states {path}", hint="its log says why")
    return True


def _is_free(lock: Path) -> bool:
    import fcntl

    with lock.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def _absent(path: Path, timeout: float) -> UsageError:
    if not path.parent.is_dir():
        hint = f"no folder {path.parent} is here: run this where the folder to which the server writes can be seen"
    else:
        hint = "the server's log says whether it still writes; a slow disk needs more time"
    return UsageError(f"the hidden states {path} have not come within {timeout:g} seconds", hint=hint)


def _read(path: Path) -> tuple[Tensor, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(path)
        ids, states = tensors["token_ids"], tensors["hidden_states"]
    except (OSError, SafetensorError, KeyError) as error:
        raise UsageError(f"{path} holds no hidden states that can be read: {error}", hint=_WHOSE) from error
    if ids.ndim != 1 or states.ndim != 3 or len(ids) != len(states):
        shapes = f"token_ids {list(ids.shape)} and hidden_states {list(states.shape)}"
        raise UsageError(f"{path} holds {shapes}, not [T] and [T, layers, hidden size]", hint=_WHOSE)
    return ids, states


_WHOSE = "the server must write them with the connector of `spec-convert serve --capture`, or with vLLM's own"
