"""Whether what lies in a folder is gone on with: only what was begun for the same request."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from spec_convert.errors import UsageError
from spec_convert.narration import say
from spec_convert.training.trainer.folder import RunFolder, all_states
from spec_convert.training.trainer.state import read_numbers

ANEW = "--no-resume-from-checkpoint starts anew, and moves what is there into a folder of its own"
ABSENT = "nothing"


def state_to_resume(folder: RunFolder, contract: Mapping[str, Any], *, resume: bool) -> Path | None:
    """The newest state, or None for a training that starts anew. Nothing is ever removed.

    Without ``resume`` what lies in the folder is moved aside. Raises UsageError when it belongs to another request.
    """
    if not resume:
        if aside := folder.move_aside():
            say(f"The training that was in {folder.path} is kept in {aside}")
        return None
    states = all_states(folder.states)
    if states:
        there, _ = read_numbers(states[-1])
        require_same(folder.path, there, contract)
        return states[-1]
    if folder.drafts():
        raise UsageError(f"{folder.path} holds drafts, and no state from which their training goes on", hint=ANEW)
    return None


def require_same(path: Path, there: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    """Raises UsageError, which names every setting that differs."""
    before, now = dict(_flat(there)), dict(_flat(as_json(asked)))
    differing = [
        f"{name} was {before.get(name, ABSENT)!r} and is {now.get(name, ABSENT)!r}"
        for name in sorted(before.keys() | now.keys())
        if before.get(name, ABSENT) != now.get(name, ABSENT)
    ]
    if differing:
        raise UsageError(
            f"{path} holds the training of another request: {'; '.join(differing)}",
            hint=f"ask for the same to go on with it, or give another folder. {ANEW}",
        )


def as_json(value: Any) -> Any:
    """As it will be read back."""
    return json.loads(json.dumps(value))


def _flat(value: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Settings inside settings by dotted names."""
    for name, inner in value.items():
        if isinstance(inner, Mapping) and inner:
            yield from _flat(inner, f"{before}{name}.")
        else:
            yield f"{before}{name}", inner
