"""Folders of runs, whole and in parts, quiet and hostile, made in code: what pipelines and trainings leave behind."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ...evaluation import sample as evaluated

GREEDY = evaluated.GREEDY
HOSTILE = evaluated.HOSTILE.replace("\ud800", "")  # half of a UTF-16 pair is refused: it is not text
SHA = "0123456789abcdef" * 4
TOKENIZER = {"name": "org/base", "fingerprint": SHA, "vocab_size": 512}
REQUEST = {
    "lr": 0.001, "seed": 0, "epochs": 2, "max_steps": None, "betas": [0.9, 0.95], "kind": "eagle3",
    "verifier": "org/base", "data": {"samples": 6, "layers": None, "lengths": SHA, "shards": [SHA]}, "held_out": None,
    "loss": [["soft_ce=1.0", 1.0, 1.0]], "from_pretrained": None,
    "draft": {"speculators_model_type": "eagle3", "draft_vocab_size": 64, "transformer_layer_config": {"a": 1}},
    "vocabulary": SHA,
}  # fmt: skip
VOCABULARY = {
    "key": SHA, "tokenizer": TOKENIZER, "target_vocab_size": 512, "draft_vocab_size": 64, "answer_tokens": 1000,
    "distinct_tokens": 90, "filled": 0,
    "coverage": [{"size": 32, "share": 0.91}, {"size": 64, "share": 0.999999}, {"size": 128, "share": 1.0}],
    "end_tokens": [257], "end_tokens_kept": [], "token_freq_sha256": SHA,
}  # fmt: skip
VALIDATION = {
    "schema_version": 1,
    "checked": [{"source": "training/best", "format": "speculators", "level": "headers", "set_aside": []}],
    "findings": [
        {
            "source": "training/best", "rule": "a-rule", "level": "warning", "where": "config.json: rope_theta",
            "message": "is not the verifier's", "hint": "say it",
        }
    ],
    "summary": {"errors": 0, "warnings": 1, "notes": 0, "checkpoints": 1},
}  # fmt: skip
STAGES = {
    "prepare": ("done", 1.9), "generate": ("done", 95.2), "vocab": ("done", 0.8), "train": ("done", 3671.0),
    "validate": ("done", 3.2), "evaluate": ("failed", 12.5), "report": ("waiting", None),
}  # fmt: skip


def record(**changes: Any) -> dict[str, Any]:
    stages = {
        name: {
            "state": state, "inputs": SHA, "command": ["spec-convert", name, "--verifier", "org/base"],
            "started": "2026-11-29T00:00:00Z", "seconds": seconds, "log": f"logs/{name}.log", "outputs": [name],
        }
        if seconds is not None
        else {"state": state}
        for name, (state, seconds) in STAGES.items()
    }  # fmt: skip
    settings = {"verifier": "org/base", "train": {"draft": "eagle3", "epochs": 2}}
    made = {"schema_version": 1, "kind": "pipeline", "spec_convert": "0.1.0", "settings": settings, "stages": stages}
    return made | changes


def trained(step: int, *, positions: int = 3, kind: str = "train", **changes: Any) -> dict[str, Any]:
    """A line of metrics.jsonl: the later, the better."""
    right = [0.6 * (1 - math.exp(-step / 200)) ** (place + 1) for place in range(positions)]
    losses = [2 + 8 * math.exp(-step / 100) + place for place in range(positions)]
    line: dict[str, Any] = {"step": step, "kind": kind, "epoch": 1 + (step > 270)}
    if kind == "train":
        line |= {"lr": 1e-3 / (1 + step / 200), "gradient_norm": 3 + math.sin(step), "skipped": 0}
        line |= {"tokens": 500 * step, "tokens_per_second": 900 + 90 * math.sin(step)}
    measured = {"loss": sum(losses), "losses": losses, "accuracy": right, "joint": right, "conditional": right}
    return line | measured | {"alpha": [0.9 * one for one in right], "tau": 1 + sum(right)} | changes


def log(*, steps: int = 540, every: int = 10, positions: int = 3) -> Iterator[dict[str, Any]]:
    """Of a training of two epochs, in which three steps were left out, and the last of it was not measured."""
    for step in range(every, steps + 1, every):
        if step in (50, 60, 300):
            yield {"step": step, "kind": "skipped", "in_a_row": 1}
        unmeasured = {"accuracy": [None] * positions, "tau": None} if step > steps - every else {}
        yield trained(step, positions=positions, **unmeasured)
        if step in (steps // 2, steps):
            yield trained(step, positions=positions, kind="held_out", epoch=2 * step // steps)


def write_training(folder: Path, lines: Sequence[Mapping[str, Any]], **request: Any) -> Path:
    """As far as its last line, with two drafts, of which the second is the best."""
    folder.mkdir(parents=True)
    write(folder / "run.json", REQUEST | request)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for epoch in (1, 2):
        draft = folder / f"epoch_{epoch:04d}"
        draft.mkdir()
        write(draft / "config.json", {"speculators_model_type": "eagle3"})
        of = {"kind": "eagle3", "step": 270 * epoch, "epoch": epoch, "data": "states"}
        write(draft / "conversion.json", {"trained": of, "versions": {"spec_convert": "0.1.0"}, "tensors": {}})
        (draft / "model.safetensors").write_bytes(b"weights")
    (folder / "best").symlink_to("epoch_0002")
    last = max((line["step"] for line in lines), default=0)
    progress = {
        "step": last, "epochs": 2 if last >= 540 else 1, "tokens": 500 * last, "seconds": 75.5, "skipped": 3,
        "best_epoch": 2,
    }  # fmt: skip
    (folder / "states" / f"step_{last:06d}").mkdir(parents=True)
    write(folder / "states" / f"step_{last:06d}" / "state.json", {"contract": REQUEST, "progress": progress})
    return folder


def write_manifest(folder: Path, kind: str, *, verifier: str = SHA) -> None:
    folder.mkdir(parents=True)
    shard = {"number": 0, "file": "shard-00000.safetensors", "samples": 6, "tokens": 99, "bytes": 1234, "sha256": SHA}
    made_with = {"engine": "transformers", "torch": "2.13.0"}
    manifest = {
        "schema_version": 1, "kind": kind, "request": {"verifier": f"sha256:{verifier}"}, "tokenizer": TOKENIZER,
        "made_with": made_with, "counts": {"samples": 6, "tokens": 99}, "planned_shards": 1, "shards": [shard],
    }  # fmt: skip
    write(folder / "manifest.json", manifest)


def write_run(folder: Path) -> Path:
    """A pipeline's folder with everything in it."""
    write_training(folder / "training", list(log()))
    write(folder / "run.json", record())
    write_manifest(folder / "prepared", "prepared")
    write_manifest(folder / "states", "hidden_states")
    write_manifest(folder / "held-out" / "states", "hidden_states")
    (folder / "vocabulary").mkdir()
    write(folder / "vocabulary" / "vocab.json", VOCABULARY)
    write(folder / "validation.json", VALIDATION)
    write(folder / "evaluation.json", GREEDY.to_json())
    return folder


def write_hostile(folder: Path) -> Path:
    """Names of everything that try to leave their place, and numbers that are none."""
    write_run(folder)
    stages = {HOSTILE: {"state": "done", "command": [HOSTILE], "seconds": 0.0, "log": HOSTILE, "outputs": [HOSTILE]}}
    write(folder / "run.json", record(settings={HOSTILE: {HOSTILE: HOSTILE}}, stages=stages))
    write(folder / "training" / "run.json", REQUEST | {"kind": HOSTILE, "verifier": HOSTILE, HOSTILE: math.nan})
    lines = [trained(10, loss=math.nan, tau=math.inf), trained(20, lr=-math.inf, losses=[1e308, -1e308, 0.0])]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "training" / "metrics.jsonl").write_text(text)
    share = [{"size": 1, "share": -1.0}, {"size": 2, "share": math.nan}, {"size": 3, "share": 1e300}]
    write(folder / "vocabulary" / "vocab.json", VOCABULARY | {"coverage": share})
    found = [VALIDATION["findings"][0] | dict.fromkeys(("source", "rule", "where", "message", "hint"), "</td>" * 3)]
    write(folder / "validation.json", VALIDATION | {"findings": found})
    return folder


def write(path: Path, document: Any) -> None:
    path.write_text(json.dumps(document), encoding="utf-8")
