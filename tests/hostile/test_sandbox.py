"""The sandbox itself: it sees everything that a command must never do, when something does it on purpose."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from .evil import EVIL
from .making import EAGLE, EAGLE3
from .sandbox import SECRET, Job, Ran, watch
from .warm import warm_up

SEEN = {
    "read": "outside: open",
    "read in a thread": "outside: open",
    "list": "outside: os.listdir",
    "write": "outside: open",
    "remove": "outside: os.remove",
    "system": "executes: os.system",
    "start": "executes: subprocess.Popen",
    "fork": "executes: os.fork",
    "unpickle": "executes: pickle.find_class",
    "evaluate": "executes: compile",
    "import": "imports",
    "connect": "executes: socket.",
    "hang": "hangs",
    "wait": "hangs",
    "grow": "more memory",
    "exhaust": "crashes: MemoryError",
    "crash": "crashes: ZeroDivisionError",
    "exit": "exit code 3",
    "print": "prints ['\\x1b']",
    "tell": "tells what a file outside",
    "litter": "leaves ['left'] behind",
}


@pytest.fixture(scope="module")
def ran(cases: Path) -> dict[str, Ran]:
    """What the sandbox made of each of them. Only what is to be read or written differs."""
    folder, outside = cases / "0", cases / "outside"
    folder.mkdir()
    (folder / "planted.py").write_text("")
    os.mkfifo(folder / "pipe")
    arguments = {"list": outside, "write": outside / "new", "import": folder, "wait": folder / "pipe", "tell": SECRET}
    jobs = [
        Job(name, str(folder), [["evil", name, str(arguments.get(name, outside / "config.json"))]], limit=3)
        for name in sorted(EVIL, key="grow".__eq__)  # last: a process never gives its highest peak back
    ]
    done = watch([warm_up(), *jobs], cases / "sandbox", readable=[EAGLE / "verifier", EAGLE3 / "verifier"])
    return {one.name: one for one in done}


def test_every_evil_is_expected_to_be_seen() -> None:
    assert EVIL.keys() == {*SEEN, "nothing"}


@pytest.mark.parametrize("name", SEEN)
def test_what_must_never_happen_is_seen(name: str, ran: dict[str, Ran]) -> None:
    assert any(SEEN[name] in violation for violation in ran[name].violations), ran[name]


def test_nothing_is_seen_where_nothing_happens(ran: dict[str, Ran]) -> None:
    assert ran["nothing"].violations == []
    assert ran["nothing"].code == 0


def test_what_was_refused_did_not_happen(ran: dict[str, Ran], cases: Path) -> None:
    assert sorted(os.listdir(cases / "outside")) == ["config.json", "model.safetensors"]
