"""Runs commands on damaged checkpoints in one watched process, and tells everything that they did beyond refusing.

As a script, in a process of its own: ``python sandbox.py JOBS RESULTS``. `watch` starts it and reads what it found.
An audit hook of the interpreter sees every file that is opened, every program that is started, every connection and
all code that runs; limits on time and memory end what would never end.
"""

from __future__ import annotations

import contextlib
import faulthandler
import io
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

SECRET = "never-to-be-read"  # in every file outside a checkpoint that a case points to
MEMORY = 2 << 30  # address space beyond what the warm process has
GROWTH = 400 << 20  # resident memory beyond it
EXECUTES = (
    "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty", "os.startfile", "subprocess.Popen",
    "pty.spawn", "socket.", "urllib.Request", "http.client", "webbrowser.open", "pickle.find_class", "ctypes.",
    "cpython.run_", "marshal.load", "os.kill", "code.__new__",
)  # fmt: skip
# Of these the first arguments are paths. Those in CHANGES may only name places in the working folder.
READS = ("open", "os.listdir", "os.scandir", "glob.glob")
CHANGES = {
    "os.remove": 1, "os.rmdir": 1, "os.mkdir": 1, "os.rename": 2, "os.link": 2, "os.symlink": 2, "os.truncate": 1,
    "os.chmod": 1, "os.chown": 1, "os.utime": 1, "os.mkfifo": 1, "shutil.rmtree": 1, "shutil.move": 2,
}  # fmt: skip
CODE = (".py", ".pyc", ".so", ".pth")
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


@dataclass
class Job:
    """Commands on one checkpoint. ``folder`` holds all that they may read; ``limit`` is in seconds."""

    name: str
    folder: str
    commands: list[list[str]]
    limit: int = 20


@dataclass
class Ran:
    """What one command did."""

    name: str
    command: list[str]
    code: int | None = None
    out: str = ""
    err: str = ""
    seconds: float = 0.0
    violations: list[str] = field(default_factory=list)

    @property
    def told(self) -> str:
        return f"{self.name}: {' '.join(self.command)[:120]} -> {self.code}\n{self.err[-600:]}"


def watch(jobs: Sequence[Job], place: Path, *, readable: Sequence[Path]) -> list[Ran]:
    """All the jobs in one child process, whose working folder is ``place``. Its first job must end well: it warms up.

    A command is an evil one of `tests/hostile/evil.py` when it begins with "evil".
    """
    for name in ("work", "home"):
        (place / name).mkdir(parents=True)
    asked, found = place / "jobs.json", place / "results.jsonl"
    asked.write_text(json.dumps({"readable": [str(path) for path in readable], "jobs": [asdict(job) for job in jobs]}))
    environment = {
        "PATH": os.environ["PATH"], "HOME": str(place / "home"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1",
        "SPEC_CONVERT_CACHE": str(place / "home" / "drafts"), "PYTHONDONTWRITEBYTECODE": "1",
    }  # fmt: skip
    command = [sys.executable, __file__, str(asked), str(found)]
    done = subprocess.run(
        command, cwd=place / "work", env=environment, capture_output=True, text=True, timeout=500, check=False
    )
    results = [Ran(**json.loads(line)) for line in found.read_text().splitlines()] if found.exists() else []
    expected = sum(len(job.commands) for job in jobs)
    assert [one.told for one in results[: len(jobs[0].commands)] if one.code != 0] == []
    assert (done.returncode, len(results)) == (0, expected), f"after {results[-1:]}: {done.stderr[-3000:]}"
    return results


class Hang(BaseException):
    """No `except Exception` on the way can swallow it."""


class Watch:
    """The audit hook. It cannot be removed, so it is told when to look."""

    def __init__(self, readable: Sequence[str]) -> None:
        self.work = os.getcwd()
        self.writable = [self.work, os.environ["HOME"]]
        self.code = [os.path.realpath(path) for path in (sys.prefix, sys.base_prefix, *_project())]
        self.readable = [
            *self.writable,
            *self.code,
            *map(os.path.realpath, readable),
            "/dev/null",
            f"/proc/{os.getpid()}",
        ]
        self.folder = ""
        self.seen: list[str] | None = None

    def __call__(self, event: str, args: tuple[Any, ...]) -> None:
        if self.seen is None:
            return
        seen, self.seen = self.seen, None  # what the look itself does is not looked at
        try:
            if problem := self._problem(event, args):
                seen.append(problem)
                raise PermissionError(problem)
        finally:
            self.seen = seen

    def _problem(self, event: str, args: tuple[Any, ...]) -> str | None:
        if event.startswith(EXECUTES) and not (event == "marshal.loads" and self._imports()):
            return f"executes: {event} {str(args)[:200]}"
        if event in ("exec", "compile"):
            where = getattr(args[0], "co_filename", None) if event == "exec" else args[1]
            return None if self._is_ours(where) or self._imports() else f"executes: {event} {str(where)[:200]}"
        if event in READS and isinstance(args[0], str | bytes):
            writes = event == "open" and isinstance(args[2], int) and args[2] & WRITES
            return self._misplaced(event, args[0], self.writable if writes else [*self.readable, self.folder])
        for path in args[: CHANGES.get(event, 0)]:
            if isinstance(path, str | bytes) and (problem := self._misplaced(event, path, self.writable)):
                return problem
        return None

    def _misplaced(self, event: str, path: str | bytes, allowed: list[str]) -> str | None:
        text = os.fsdecode(path)
        if os.path.basename(text) == text and not os.path.lexists(text):
            return None  # relative to a folder that is already open, as rmtree does it
        real = os.path.realpath(text)
        if real.endswith(CODE) and _inside(real, [self.folder]):
            return f"imports {real}"
        return None if _inside(real, allowed) else f"outside: {event} {real}"

    def _imports(self) -> bool:
        """Whether a module is being imported, from a place that is looked at like any: they make classes of text."""
        frame: FrameType | None = sys._getframe(2)
        while frame and not frame.f_code.co_filename.startswith("<frozen importlib"):
            frame = frame.f_back
        return frame is not None

    def _is_ours(self, where: object) -> bool:
        text = os.fsdecode(where) if isinstance(where, str | bytes) else str(where)
        return text.startswith("<frozen ") or _inside(os.path.realpath(text), self.code)


def _project() -> list[str]:
    import spec_convert

    return [str(Path(place).parent) for place in spec_convert.__path__]


def _inside(path: str, folders: Sequence[str]) -> bool:
    return any(folder and (path == folder or path.startswith(folder.rstrip("/") + "/")) for folder in folders)


def main(asked: str, found: str) -> None:
    told = json.loads(Path(asked).read_text())
    watched = Watch(told["readable"])
    sys.addaudithook(watched)
    signal.signal(signal.SIGALRM, _hang)
    jobs, baseline = [Job(**job) for job in told["jobs"]], 0
    with open(found, "w", encoding="utf-8") as results:
        for number, job in enumerate(jobs):
            for command in job.commands:
                ran = Ran(job.name, command)
                before = _peak()
                _run(job, ran, watched if number else None)
                if number:
                    _judge(ran, _peak() - baseline if _peak() > before else 0, watched)
                _clean(ran, watched)
                results.write(json.dumps(asdict(ran)) + "\n")
                results.flush()
            if not number:
                baseline = _peak()
                limit = _address_space() + MEMORY
                resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _run(job: Job, ran: Ran, watched: Watch | None) -> None:
    out, err = io.StringIO(), io.StringIO()
    faulthandler.dump_traceback_later(job.limit + 30, exit=True)  # for what blocks signals
    signal.alarm(job.limit)
    started = time.process_time()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), _looking(watched, job, ran):
            ran.code = _program(ran.command)(ran.command)
    except Hang:
        ran.violations.append(f"hangs: more than {job.limit} s")
    except BaseException as failure:
        ran.violations.append(f"crashes: {type(failure).__name__}: {failure}"[:500])
    finally:
        signal.alarm(0)
        ran.seconds = time.process_time() - started
        faulthandler.cancel_dump_traceback_later()
    ran.out, ran.err = out.getvalue()[:5_000_000], err.getvalue()[:100_000]


def _program(command: list[str]) -> Callable[[list[str]], int]:
    if command[0] == "evil":
        sys.path.insert(0, os.path.dirname(__file__))
        from evil import run_evil  # type: ignore[import-not-found]

        sys.path.pop(0)
        return run_evil  # type: ignore[no-any-return]
    from spec_convert.cli import run

    return run


@contextlib.contextmanager
def _looking(watched: Watch | None, job: Job, ran: Ran) -> Iterator[None]:
    if watched:
        watched.folder, watched.seen = os.path.realpath(job.folder), []
    try:
        yield
    finally:
        if watched:
            ran.violations += dict.fromkeys(watched.seen or [])
            watched.seen = None


def _judge(ran: Ran, growth: int, watched: Watch) -> None:
    said = ran.out + ran.err
    if not ran.violations and ran.code not in (0, 1, 2):
        ran.violations.append(f"exit code {ran.code}")
    if "Traceback" in said or "internal error" in said:
        ran.violations.append(f"crashes: {ran.err[-500:]}")
    if odd := {letter for letter in said if not letter.isprintable() and letter != "\n"}:
        ran.violations.append(f"prints {sorted(odd)[:5]!a}")
    if SECRET in said:
        ran.violations.append("tells what a file outside the checkpoint holds")
    if growth > GROWTH:
        ran.violations.append(f"takes {growth >> 20} MB more memory")
    left = set(os.listdir(watched.work)) - ({"output"} if ran.code == 0 else set())
    if left:
        ran.violations.append(f"leaves {sorted(left)} behind")


def _clean(ran: Ran, watched: Watch) -> None:
    for name in os.listdir(watched.work):
        path = os.path.join(watched.work, name)
        shutil.rmtree(path) if os.path.isdir(path) else os.remove(path)


def _hang(*_: object) -> None:
    raise Hang


def _peak() -> int:
    """The most resident memory since this program began. ``ru_maxrss`` would begin with that of whoever started it."""
    peak = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert peak
    return int(peak[1]) << 10


def _address_space() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


if __name__ == "__main__":
    main(*sys.argv[1:])
