"""The Pythons that stages run in: whether one is there with this package, and how many GPUs it sees."""

from __future__ import annotations

import subprocess
import sys
from functools import cache
from importlib.metadata import version

from spec_convert.errors import UsageError

PACKAGE = "spec-convert @ git+https://github.com/OWNER/spec-convert"  # as README.md installs it
GPUS = "import torch; print(torch.cuda.device_count())"


def require_usable(python: str) -> None:
    """Raises UsageError when ``python`` cannot run our verbs, or would run those of another version."""
    ours = version("spec-convert")
    install = f"{python} -m pip install '{PACKAGE}'"
    try:
        said = _ask(python, "-m", "spec_convert", "--version")
    except OSError as reason:
        what = f"the interpreter {python} does not run: {reason.strerror}"
        raise UsageError(what, hint="`python` is the path of one: …/bin/python of an environment") from reason
    except subprocess.CalledProcessError as failed:
        lines = failed.stderr.strip().splitlines() or [f"exit code {failed.returncode}"]
        raise UsageError(f"{python} has no spec_convert that runs: {lines[-1]}", hint=install) from failed
    if (theirs := said.rpartition(" ")[2]) != ours:
        raise UsageError(f"{python} has spec-convert {theirs}, and this is {ours}", hint=install)


@cache
def gpus_of(python: str) -> int:
    """How many torch sees there. Raises UsageError when it has none that loads."""
    try:
        return int(_ask(python, "-c", GPUS))
    except (OSError, ValueError, subprocess.CalledProcessError) as reason:
        raise UsageError(f"{python} cannot say how many GPUs torch sees", hint=f'{python} -c "{GPUS}"') from reason


def interpreter(named: str | None) -> str:
    return named or sys.executable


def _ask(*command: str) -> str:
    return subprocess.run(
        command, capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL
    ).stdout.strip()  # fmt: skip
