"""What drafts that are trained here are worth, beside those that the original authors' code trained on the same data.

    OMP_NUM_THREADS=1 python benchmarks/acceptance.py [--folder FOLDER] [--draft KIND]...

SmolLM2-135M-Instruct, the 540 training conversations of GSM8K in the shared folder (SPEC_CONVERT_SHARED, or
`../shared`), and the 20 held-out prompts on which a real vLLM measured the authors' drafts. Each kind is trained by
`spec-convert train` and measured by `spec-convert evaluate --engine vllm`, each in a process of its own. What is in
FOLDER already is used again. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
REAL = Path(os.environ.get("SPEC_CONVERT_SHARED", HERE.parent.parent / "shared")) / "real"
PROGRAM = str(Path(sys.executable).with_name("spec-convert"))
ROWS, LONGEST, DRAFT_VOCABULARY = 540, 320, 8192
# Nothing here may see more conversations than the authors' runs did: 508 steps of 4 for EAGLE-1, 552 of 4 for EAGLE-3.
# Where the verifier's whole vocabulary is the work, it is computed in bfloat16.
SETTINGS: dict[str, dict[str, Any]] = {
    "eagle": {"epochs": 3, "total_seq_len": 320, "lr": 1.5e-3, "amp": True, "learn_prompts": True},
    "eagle3": {"epochs": 3, "total_seq_len": 512, "lr": 1e-3},
    # goes on with the draft of `eagle`
    "hass": {"epochs": 1, "max_steps": 120, "total_seq_len": 512, "lr": 3e-4, "amp": True},
    "eagle3-shared-head": {"epochs": 2, "total_seq_len": 512, "lr": 1e-3, "amp": True},
}
AUTHORS = {"eagle1_smol135": "EAGLE-1, the authors' code", "eagle3_smol135": "EAGLE-3, the authors' code"}
SEEN = {"eagle1_smol135": "2,032", "eagle3_smol135": "2,208"}  # steps times conversations
COLUMNS = ("draft", "accepted at 1, 2, 3", "mean length", "same text", "conversations seen", "CPU minutes")


def command(*words: object) -> tuple[str, float]:
    """Run a verb of the program: what it printed, and the CPU seconds that it took."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([PROGRAM, *map(str, words)], check=True, stdout=subprocess.PIPE, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return done.stdout, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def make_data(folder: Path, verifier: Path) -> None:
    """The states of the training conversations, the draft vocabulary, and the prompts."""
    rows = (REAL / "gsm8k_smol_onpolicy.jsonl").read_text().splitlines(keepends=True)
    (folder / "train.jsonl").write_text("".join(rows[:ROWS]))
    measured = json.loads((REAL / "measured.json").read_text())
    (folder / "prompts.jsonl").write_text("".join(json.dumps({"prompt": one}) + "\n" for one in measured["prompts"]))
    if not (folder / "vocabulary").exists():
        command("prepare", folder / "train.jsonl", folder / "prepared", "--verifier", verifier, "--seq-length", LONGEST)
        command("generate", folder / "prepared", folder / "states", "--engine", "transformers")
        command("vocab", folder / "states", folder / "vocabulary", "--draft-vocab-size", DRAFT_VOCABULARY)


def train(kind: str, folder: Path, verifier: Path) -> dict[str, Any]:
    """What `train --json` tells, how many conversations were seen, and the CPU seconds that it took."""
    account = folder / f"{kind}.json"
    if not account.exists():
        flags: dict[str, Any] = {
            "verifier_name_or_path": verifier, "data_path": folder / "states", "save_path": folder / kind,
            "draft": kind, "dtype": "float32", **SETTINGS[kind],
        }  # fmt: skip
        if kind == "eagle3":
            flags |= {f"{name}_path": folder / "vocabulary" / f"{name}.npy" for name in ("d2t", "t2d")}
        if kind == "hass":
            flags["from_pretrained"] = train("eagle", folder, verifier)["draft"]
        given = [
            word
            for name, value in flags.items()
            for word in (f"--{name.replace('_', '-')}", *(() if value is True else (value,)))
        ]
        printed, seconds = command("train", *given, "--json")
        told = json.loads(printed)
        shards = json.loads((folder / "states" / "manifest.json").read_text())["shards"]
        seen = ROWS * told["tokens"] / sum(shard["tokens"] for shard in shards)
        account.write_text(json.dumps(told | {"cpu_seconds": seconds, "seen": round(seen)}))
    known: dict[str, Any] = json.loads(account.read_text())
    return known


def measure(draft: str, folder: Path, verifier: Path) -> dict[str, Any]:
    """As the authors' drafts were measured: three drafted tokens, greedy, float32."""
    measured = json.loads((REAL / "measured.json").read_text())
    arguments = [f"{name}={value}" for name, value in measured["llm_args"].items() if name != "dtype"]
    flags = ["--engine", "vllm", "--dtype", measured["llm_args"]["dtype"], "--speculative-tokens", "3",
             "--max-tokens", str(measured["sampling"]["max_tokens"])]  # fmt: skip
    given = [word for argument in arguments for word in ("--llm-arg", argument)]
    prompts = folder / "prompts.jsonl"
    printed, _ = command(
        "evaluate", draft, "--verifier", verifier, "--prompts", prompts, *flags, *given, "--json"
    )  # fmt: skip
    told: dict[str, Any] = json.loads(printed)
    return told


def row(name: str, told: dict[str, Any], *, same: str, seen: str, minutes: str) -> str:
    shares = " ".join(f"{share:.3f}".removeprefix("0") for share in told["acceptance_per_position"])
    return f"| {name} | {shares} | {told['mean_acceptance_length']:.3f} | {same} | {seen} | {minutes} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=HERE.parent / "build" / "acceptance")
    parser.add_argument("--verifier", type=Path, help="SmolLM2-135M-Instruct, as a folder")
    parser.add_argument("--draft", choices=SETTINGS, action="append", help="default: all of them")
    args = parser.parse_args()
    from spec_convert.training.demo.smollm2 import smollm2_folder

    folder: Path = args.folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    verifier = args.verifier.absolute() if args.verifier else smollm2_folder(folder / "verifier")
    make_data(folder, verifier)
    print(f"| {' | '.join(COLUMNS)} |\n|---|---|---:|---:|---:|---:|", flush=True)
    measured = json.loads((REAL / "measured.json").read_text())
    for name, title in AUTHORS.items():
        known = measured[name]
        same = f"{known['prompts_with_identical_tokens']} of {len(measured['prompts'])}"
        print(row(title, known, same=same, seen=SEEN[name], minutes="about 13"))
    for kind in args.draft or SETTINGS:
        trained = train(kind, folder, verifier)
        told = measure(trained["draft"], folder, verifier)
        lossless = "all" if told["lossless"] else "not all"
        seen, minutes = f"{trained['seen']:,}", f"{trained['cpu_seconds'] / 60:.1f}"
        print(row(f"`{kind}`", told, same=lossless, seen=seen, minutes=minutes), flush=True)


if __name__ == "__main__":
    main()
