"""How a training goes: steps, optimiser, schedule, and what is written when."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal, get_args

from spec_convert.errors import UsageError

OptimiserName = Literal["adamw", "muon"]
ScheduleName = Literal["linear", "cosine", "constant", "wsd"]
Amp = Literal["bf16", "none"]
Parallelism = Literal["none", "ddp", "fsdp"]

# What may change when a training goes on: how it runs and what it says, not what it computes.
HOW_IT_RUNS = frozenset({"save_every_steps", "keep_states", "log_every", "measure_every", "nan_limit", "device"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A training ends after ``epochs`` or ``max_steps``, whichever comes first; one of them may be None.

    Raises UsageError when it could not be carried out.
    """

    lr: float
    seed: int
    epochs: int | None = None
    max_steps: int | None = None
    accumulation: int = 1  # rows that each process reads in one optimiser step
    optimiser: OptimiserName = "adamw"
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.0  # of matrices: norms and biases do not decay
    clip: float | None = 0.5  # the largest norm of all gradients together
    schedule: ScheduleName = "linear"
    warmup: float = 0.0  # the share of all steps in which the learning rate rises
    amp: Amp = "none"
    save_every_steps: int | None = None  # a state, besides that of each epoch
    keep_states: int = 1
    log_every: int = 10
    measure_every: int = 10  # reads the verifier's whole vocabulary
    nan_limit: int = 10  # steps in a row without a finite gradient
    device: str | None = None  # None: the GPU of this process, where there is one
    parallelism: Parallelism = "none"

    def __post_init__(self) -> None:
        for name, names in (
            ("optimiser", OptimiserName), ("schedule", ScheduleName), ("amp", Amp), ("parallelism", Parallelism)
        ):  # fmt: skip
            if (given := getattr(self, name)) not in get_args(names):
                raise UsageError(f"there is no {name} `{given}`", hint=f"one of {', '.join(get_args(names))}")
        if self.epochs is None and self.max_steps is None:
            raise UsageError("nothing says when the training ends", hint="say after how many epochs or steps")
        counts = ("epochs", "max_steps", "accumulation", "save_every_steps", "keep_states", "log_every",
                  "measure_every", "nan_limit")  # fmt: skip
        for name in counts:
            if (count := getattr(self, name)) is not None and count < 1:
                raise UsageError(f"{name} must be at least 1, not {count}")
        if not (self.lr > 0 and 0 <= self.warmup <= 1 and self.weight_decay >= 0):
            raise UsageError("the learning rate must be above 0, the weight decay not below, the warm-up from 0 to 1")
        if not all(0 <= beta < 1 for beta in self.betas) or (self.clip is not None and self.clip <= 0):
            raise UsageError("betas must be from 0 to below 1, and what clips gradients above 0")

    def deciding(self) -> dict[str, object]:
        """The part of it that decides which weights come out, as JSON."""
        kept = {name: value for name, value in asdict(self).items() if name not in HOW_IT_RUNS}
        return kept | {"betas": list(self.betas)}
