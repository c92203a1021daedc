"""The commands that look at each case, and the sound checkpoints that they look at first."""

from __future__ import annotations

from pathlib import Path

from .making import EAGLE, EAGLE3, FIXTURES
from .sandbox import Job


def commands(source: Path, base: Path, *, few: bool = False) -> list[list[str]]:
    """Each ends with code 0 for a sound checkpoint whose verifier is that of ``base``."""
    plan = ["convert", str(source), "output", "--verifier", str(base / "verifier")]
    checked = ["validate", "--level", "forward", "--json", str(source)]
    if few:
        return [checked]
    return [["detect", str(source)], ["inspect", str(source)], checked, [*plan, "--dry-run"], [*plan, "--validate"]]


def warm_up() -> Job:
    """All that a command imports is imported before anybody watches: afterwards, memory and code are the case's."""
    sound = [command for base in (EAGLE, EAGLE3) for command in commands(base / "checkpoint", base)]
    zipped = str(FIXTURES / "torch_zip_named_safetensors" / "checkpoint")
    return Job("warm-up", str(EAGLE), [*sound, ["inspect", zipped]], limit=200)
