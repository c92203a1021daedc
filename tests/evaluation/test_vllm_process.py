"""The process in which vLLM runs: its result, its reasons when it fails, and that it is never left behind.

Its `main` is the real one, its engine is not: a real one runs in tests/e2e.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from spec_convert.errors import UsageError
from spec_convert.evaluation import vllm_process


@pytest.fixture
def worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], tuple[str, ...]]:
    """`worker(body)`: the body of `work(request, report)` in the process that takes the place of vLLM's."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)

    def install(body: str) -> tuple[str, ...]:
        script = tmp_path / "worker.py"
        script.write_text(
            "import os, subprocess, sys, time\nfrom spec_convert.evaluation import vllm_worker\n"
            "def work(request, report):\n" + "".join(f"    {line}\n" for line in dedent(body).strip().splitlines())
            + "vllm_worker.work = work\nvllm_worker.main()\n"
        )  # fmt: skip
        monkeypatch.setattr(vllm_process, "COMMAND", (sys.executable, str(script)))
        return vllm_process.COMMAND

    return install


def run(**named: Any) -> dict[str, Any]:
    return vllm_process.run({"number": 20}, **{"on_progress": lambda _: None, "verbose": False} | named)


def test_the_result_comes_through_whatever_vllm_prints(
    worker: Callable[..., Any], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    worker("""
        print("noise"); os.system("echo noise of a child"); print("noise", file=sys.stderr)
        report(2); report(1)
        return {"twice": 2 * request["number"], "cache": os.environ["VLLM_CPU_KVCACHE_SPACE"]}
    """)
    told: list[int] = []
    assert run(on_progress=told.append) == {"twice": 40, "cache": "4"}
    assert told == [2, 1]
    assert capfd.readouterr() == ("", "")
    assert list(tmp_path.glob("*.log")) == []
    run(verbose=True)
    out, err = capfd.readouterr()
    assert (out, Counter(err.split())["noise"]) == ("", 3)


def test_a_failure_names_the_reason_and_keeps_the_log(worker: Callable[..., Any], tmp_path: Path) -> None:
    worker("""
        print("INFO 01-01 00:00:00 [core.py:1] loading")
        raise ValueError("the head size 24 is not supported")
    """)
    with pytest.raises(UsageError) as refused:
        run()
    assert refused.value.message == "vLLM failed: ValueError: the head size 24 is not supported"
    [log] = tmp_path.glob("*.log")
    assert refused.value.hint == f"the whole log of vLLM is {log}"
    assert "loading" in log.read_text()


def test_a_vllm_that_would_measure_wrongly_is_refused_without_a_log(worker: Callable[..., Any], tmp_path: Path) -> None:
    worker("raise vllm_worker.Refusal('it loses the temperature')")
    with pytest.raises(UsageError, match="it loses the temperature") as refused:
        run()
    assert "--engine transformers" in refused.value.hint
    assert list(tmp_path.glob("*.log")) == []


def test_a_process_that_is_killed_is_a_failure_too(worker: Callable[..., Any]) -> None:
    worker("os.kill(os.getpid(), 9)")
    with pytest.raises(UsageError, match="killed by signal 9"):
        run()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_of_vllm_outlives_the_command(worker: Callable[..., Any], tmp_path: Path, how: signal.Signals) -> None:
    pids = tmp_path / "pids"
    command = worker(f"""
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        with open({str(pids)!r}, "w") as file:
            file.write(f"{{os.getpid()}} {{child.pid}} .")
        time.sleep(600)
    """)
    ours = f"""
        from spec_convert.evaluation import vllm_process
        vllm_process.COMMAND = {command!r}
        vllm_process.run({{}}, on_progress=print, verbose=False)
    """
    parent = subprocess.Popen([sys.executable, "-c", dedent(ours)], stderr=subprocess.DEVNULL)
    until(lambda: pids.exists() and pids.read_text().endswith("."))
    parent.send_signal(how)
    assert parent.wait() != 0
    until(lambda: not any(alive(int(pid)) for pid in pids.read_text().split()[:2]))


def until(happened: Callable[[], bool]) -> None:
    while not happened():
        time.sleep(0.02)


def alive(pid: int) -> bool:
    """Whether a process still runs: one that has ended may stay in the table until somebody asks for its exit code."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False
