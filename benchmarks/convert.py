"""How long `spec-convert convert` takes and how much memory it needs, beside `cp` and the speculators library.

    python benchmarks/convert.py [--speculators-python VENV/bin/python] [--rounds N] [--folder FOLDER]

All contenders run in turn, round after round, on an EAGLE-3 draft of 850 MB. Prints Markdown tables.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

# Only the standard library: a child's peak memory cannot read lower than that of the process which started it.
HERE = Path(__file__).resolve().parent
SHARED = Path(os.environ.get("SPEC_CONVERT_SHARED", HERE.parent.parent / "shared"))
WRITER = SHARED / "bench" / "make_llama8b_eagle3.py"
WEIGHTS = {"bin": "pytorch_model.bin", "safetensors": "model.safetensors"}
# Bytecode is cached, as it is wherever the package is installed.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


@dataclass
class Contender:
    """One command, which makes ``output``, and what its runs took."""

    name: str
    container: str
    command: list[str]
    output: Path | None = None
    seconds: list[float] = field(default_factory=list)
    peaks: list[float] = field(default_factory=list)
    others: list[float] = field(default_factory=list)

    def run(self, log: Path) -> None:
        seconds, peak, others = measure(self.command, log)
        self.seconds.append(seconds)
        self.peaks.append(peak)
        self.others.append(others)
        self.remove_output()

    def remove_output(self) -> None:
        if self.output and self.output.is_dir():
            shutil.rmtree(self.output)
        elif self.output:
            self.output.unlink(missing_ok=True)


def busy_seconds() -> float:
    """What all processors together have worked since the machine started."""
    user, nice, system, _idle, _waiting, *rest = map(int, Path("/proc/stat").read_text().split()[1:9])
    return (user + nice + system + sum(rest)) / os.sysconf("SC_CLK_TCK")


def measure(command: list[str], log: Path) -> tuple[float, float, float]:
    """Wall seconds, the peak resident set in MiB by the kernel's account, and how many cores other processes used."""
    to_log = (os.POSIX_SPAWN_OPEN, 1, str(log), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    busy, started = busy_seconds(), time.perf_counter()
    child = os.posix_spawn(command[0], command, ENVIRONMENT, file_actions=[to_log, (os.POSIX_SPAWN_DUP2, 1, 2)])
    _, status, usage = os.wait4(child, 0)
    seconds = time.perf_counter() - started
    if code := os.waitstatus_to_exitcode(status):
        sys.exit(f"{' '.join(command)} left with {code}:\n{log.read_text(errors='replace')[-2000:]}")
    others = (busy_seconds() - busy - usage.ru_utime - usage.ru_stime) / seconds
    return seconds, usage.ru_maxrss / 1024, max(0.0, others)


def make_input(folder: Path) -> None:
    """FOLDER/bin/draft, FOLDER/safetensors/draft and FOLDER/bin/verifier, unless an earlier run has made them."""
    for container, weights in WEIGHTS.items():
        if not (folder / container / "draft" / weights).exists():
            if not WRITER.exists():
                sys.exit(f"{WRITER} is not there: set SPEC_CONVERT_SHARED, or give a --folder that holds the input")
            subprocess.run([sys.executable, WRITER, folder / container, "--container", container], check=True)
    shutil.rmtree(folder / "safetensors" / "verifier", ignore_errors=True)  # one verifier serves both


def contenders(folder: Path, out: Path, speculators: Path | None) -> list[Contender]:
    ours = str(Path(sys.executable).with_name("spec-convert"))
    verifier, cp = str(folder / "bin" / "verifier"), shutil.which("cp") or sys.exit("there is no cp")
    listed = []
    for container, weights in WEIGHTS.items():
        draft, copy, made = folder / container / "draft", out / "copy", out / "converted"
        convert = [ours, "convert", str(draft), str(made), "--verifier", verifier]
        listed.append(Contender("cp", container, [cp, str(draft / weights), str(copy)], copy))
        listed.append(Contender("spec-convert convert", container, convert, made))
        if speculators:
            script = str(speculators.absolute().with_name("speculators"))
            flags = ["--algorithm", "eagle3", "--verifier", verifier, "--output-path", str(made)]
            listed.append(Contender("speculators convert", container, [script, "convert", str(draft), *flags], made))
    listed.append(Contender("spec-convert --help", "", [ours, "--help"]))
    listed.append(Contender("spec-convert detect", "bin", [ours, "detect", str(folder / "bin" / "draft")]))
    return listed


def show_conversions(runs: list[Contender]) -> None:
    print("| container | command | median s | min - max s | x cp | 1.5 x cp + 0.3 s | peak MiB | others |")
    print("|---|---|---:|---:|---:|---:|---:|---:|")
    for container in WEIGHTS:
        rows = [run for run in runs if run.container == container and run.output]
        copying = next(median(run.seconds) for run in rows if run.name == "cp")
        for run in rows:
            taken, allowed = median(run.seconds), 1.5 * copying + 0.3
            verdict = "" if run.name == "cp" else f"{allowed:.2f}: {'within' if taken <= allowed else 'over'}"
            print(
                f"| {container} | `{run.name}` | {taken:.2f} | {min(run.seconds):.2f} - {max(run.seconds):.2f} "
                f"| {taken / copying:.1f} | {verdict} | {max(run.peaks):.0f} | {median(run.others):.1f} |"
            )


def show_starts(runs: list[Contender]) -> None:
    print("\n| command | median s | min - max s | peak MiB |\n|---|---:|---:|---:|")
    for run in runs:
        if run.output is None:
            spread = f"{min(run.seconds):.3f} - {max(run.seconds):.3f}"
            print(f"| `{run.name}` | {median(run.seconds):.3f} | {spread} | {max(run.peaks):.0f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=HERE.parent / "build" / "benchmark", help="input is kept here")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--speculators-python", type=Path, help="the Python of an environment with speculators")
    args = parser.parse_args()
    make_input(args.folder)
    with tempfile.TemporaryDirectory(dir=args.folder) as scratch:
        log = Path(scratch) / "log"
        runs = contenders(args.folder, Path(scratch), args.speculators_python)
        for run in runs:  # not counted: fills the page cache and the caches of bytecode
            if run.name != "speculators convert":
                measure(run.command, log)
                run.remove_output()
        for number in range(args.rounds):
            print(f"round {number + 1} of {args.rounds}", file=sys.stderr)
            for run in runs:
                run.run(log)
    show_conversions(runs)
    show_starts(runs)
    print(f"\n{args.rounds} rounds, {len(os.sched_getaffinity(0))} cores; `others`: cores that other processes used.")
    if args.speculators_python is None:
        print("The speculators library is left out: `--speculators-python` was not given.")


if __name__ == "__main__":
    main()
