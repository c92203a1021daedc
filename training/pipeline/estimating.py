"""What a stage would take of the disk and of time, as far as that is known before: measured, rough, or unknown."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from spec_convert.evaluation.rows import read_rows
from spec_convert.training.capture.estimate import ITEM_BYTES
from spec_convert.training.pipeline.job import QUIET, Job
from spec_convert.training.pipeline.machine import flops
from spec_convert.training.pipeline.work import draft_weights, training_work, verifier_weights
from spec_convert.training.record import StageRecord
from spec_convert.training.store.manifest import NAME, read_manifest

Basis = Literal["measured", "rough", "unknown"]
LETTERS = 4  # of a token, in most languages that are written in letters
OF_A_TOKEN = 5  # bytes in a prepared store: an id and its mask
OF_A_WEIGHT = 12  # bytes in a training's state: the weight and two moments in float32
AMOUNTS = ("--max-samples", "--target-tokens", "--epochs", "--max-steps")  # options that decide how many tokens


@dataclass(frozen=True, slots=True)
class Estimate:
    """None: nobody knows. ``basis``: of the seconds; "measured" is here, by the same commands but for amounts."""

    bytes: int | None = None
    seconds: float | None = None
    basis: Basis = "unknown"


@dataclass(frozen=True, slots=True)
class Estimator:
    """``remade``: those of the ``jobs`` that will have run before: what lies there of them says nothing any more.

    ``records``: what became of stages in earlier runs.
    """

    jobs: Sequence[Job]
    remade: frozenset[str] = frozenset()
    records: Mapping[str, StageRecord] = field(default_factory=dict)

    def of(self, job: Job) -> Estimate:
        tokens = self.tokens(job)
        size = None if tokens is None else _bytes(job, tokens)
        if (seconds := self._measured(job, tokens)) is not None:
            return Estimate(size, seconds, "measured")
        work = _work(job)
        if not work or tokens is None or job.python != sys.executable:  # another torch has another speed
            return Estimate(size)
        return Estimate(size, work * tokens / flops() / (job.processes or 1), "rough")

    def _measured(self, job: Job, tokens: int | None) -> float | None:
        """As long as it took before: by the token, where these are counted, and otherwise for the same again."""
        before = self.records.get(job.stage.name)
        if before is None or before.state != "done" or before.seconds is None or not self._alike(job):
            return None
        if before.tokens and tokens:
            return before.seconds * tokens / before.tokens
        remade = any(maker.stage.name in self.remade for maker in job.makers)
        return None if before.tokens or remade or before.inputs != job.inputs() else before.seconds

    def _alike(self, job: Job) -> bool:
        """Whether it was run by the same command, but for amounts, on what such commands had made before."""
        before = self.records.get(job.stage.name)
        if before is None or _but_amounts(before.command) != _but_amounts(job.command()):
            return False
        makers = job.makers
        made = [self.records.get(maker.stage.name) for maker in makers]
        since = any(one is None or one.started > before.started for one in made)
        return not since and all(map(self._alike, makers))

    def tokens(self, job: Job) -> int | None:
        """That go through a stage, as often as they do; None: it does not count them, or nobody knows."""
        if job.stage.verb == "prepare":
            return self._of_sources(job)
        stores = [name for name in job.reads if name.startswith(("prepared", "states"))]
        if job.stage.verb not in ("generate", "train") or (there := self._of_store(job, stores[0])) is None:
            return None
        return self._captured(job, there) if job.stage.verb == "generate" else _learned(job, there)

    def _of_store(self, job: Job, name: str) -> int | None:
        """Counted, when the store stays as it is; else of what it will be made of."""
        thing = job.things[name]
        folder = Path(thing.values()[0])
        if thing.made_by not in self.remade and (folder / NAME).is_file():
            return read_manifest(folder).tokens
        maker = next((one for one in self.jobs if one.stage.name == thing.made_by), None)
        return self.tokens(maker) if maker else None

    def _captured(self, job: Job, tokens: int) -> int:
        """Those of `generate`, which may end before all are captured."""
        folder, most = Path(job.params["data"]), job.params["max_samples"]
        if most and (folder / NAME).is_file():
            tokens = int(tokens * min(1, most / read_manifest(folder).samples))
        return min(tokens, job.params["target_tokens"] or tokens)

    def _of_sources(self, job: Job) -> int | None:
        """A guess from the length of the texts; None for those that are not on this machine, or not written yet."""
        params = job.params
        sources = [Path(source) for source in params["sources"]]
        written = all(job.things[name].made_by not in self.remade for name in job.reads)
        if not written or not all(source.is_file() for source in sources):
            return None
        rows = (json.dumps(row, default=str) for source in sources for _, row in read_rows(source))
        tokens = [min(len(row) // LETTERS, int(params["seq_length"])) for row in rows]
        return sum(tokens[: params["max_samples"]])


def tokens_of(job: Job) -> int | None:
    """What went through a stage that is done."""
    if job.stage.verb in ("prepare", "generate"):
        return read_manifest(Path(job.makes.values()[0])).tokens
    return Estimator([job]).tokens(job)


def _learned(job: Job, tokens: int) -> int:
    """Those of all epochs, or as many as come before `--max-steps` ends a training."""
    settings = job.params_of_training
    whole = tokens * settings.epochs
    if settings.max_steps is None:
        return whole
    rows = settings.max_steps * settings.gradient_accumulation_steps * (job.processes or 1)
    return min(whole, rows * settings.total_seq_len)


def _bytes(job: Job, tokens: int) -> int | None:
    if job.stage.verb == "prepare":
        return OF_A_TOKEN * tokens
    if job.stage.verb == "generate":
        from spec_convert.serving.capture import default_layers
        from spec_convert.verifier import open_verifier

        verifier, params = open_verifier(job.request.verifier), job.params
        layers = params["layer_ids"] or default_layers(verifier.num_hidden_layers)
        return tokens * (len(layers) * verifier.hidden_size * ITEM_BYTES[params["dtype"]] + OF_A_TOKEN)
    return _of_training(job)


def _of_training(job: Job) -> int | None:
    """A state, and a draft for each epoch, of the verifier's type unless another is asked for."""
    from spec_convert.verifier import open_verifier

    settings, facts = job.params_of_training, open_verifier(job.request.verifier).text_config
    dtype = settings.dtype or facts.get("dtype") or facts.get("torch_dtype")
    if dtype not in ITEM_BYTES:
        return None
    return draft_weights(settings, job.request) * (OF_A_WEIGHT + settings.epochs * ITEM_BYTES[dtype])


def _but_amounts(command: Sequence[str]) -> list[str]:
    said = [word for word in command if word not in QUIET]
    return [word for word, before in zip(said, ["", *said], strict=False) if not {word, before} & {*AMOUNTS}]


def _work(job: Job) -> float:
    """Operations for each token; 0: nobody knows."""
    if job.stage.verb == "generate":
        return 2 * verifier_weights(job.request)
    return training_work(job.params_of_training, job.request) if job.stage.verb == "train" else 0
