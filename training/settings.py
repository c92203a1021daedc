"""What a training run is asked for: the options of `train`, which are the keys of its `run.toml` too."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from spec_convert.errors import UsageError
from spec_convert.training.losses.mix import Mix
from spec_convert.training.recipes import RECIPES, Kind
from spec_convert.training.trainer.plan import OptimiserName, ScheduleName

Logger = Literal["trackio", "wandb", "tensorboard"]

CHAINS: tuple[Kind, ...] = tuple(kind for kind, recipe in RECIPES.items() if recipe.steps > 1)
FUSES: tuple[Kind, ...] = ("eagle3", "eagle3-shared-head", "p-eagle")
OF_STATES: tuple[Kind, ...] = ("eagle", "hass")  # their state is the verifier's, whose own head reads it
PRUNES: tuple[Kind, ...] = ("eagle3", "p-eagle")
WHOLE_VOCABULARY = "has the verifier's whole vocabulary"
ONE_STEP = "is trained one step at a time"
# Settings that mean something to these kinds of draft only, and what is said of the others.
OF_KINDS: Mapping[str, tuple[tuple[Kind, ...], str]] = {
    "ttt_steps": (CHAINS, ONE_STEP),
    "ttt_step_loss_decay": (CHAINS, ONE_STEP),
    "target_layers": (FUSES, "is not fed several of the verifier's states"),
    "d2t_path": (PRUNES, WHOLE_VOCABULARY),
    "t2d_path": (PRUNES, WHOLE_VOCABULARY),
    "with_head": (("eagle3-shared-head",), "leaves no choice of whether a head is stored"),
}
OF_A_NEW_DRAFT = ("num_layers", "target_layers", "d2t_path", "t2d_path")
# Settings that mean nothing one without the other.
PAIRS = (("d2t_path", "t2d_path"), ("layer_ids", "last_state"))
OPTIONS = {"resume_from_checkpoint": "--no-resume-from-checkpoint"}  # named otherwise than the setting
PATHS = ("data_path", "val_data_path", "d2t_path", "t2d_path", "save_path", "log_dir")
SOURCES = ("verifier_name_or_path", "draft_config", "from_pretrained")  # a file or folder, or the name of another thing

LAST: Mapping[str, Literal["before_norm", "after_norm"]] = {"before-norm": "before_norm", "after-norm": "after_norm"}


def option(setting: str) -> str:
    """What the setting is called on the command line."""
    return OPTIONS.get(setting, f"--{setting.replace('_', '-')}")


def _absolute(path: Path) -> Path:
    return Path(os.path.abspath(os.path.expanduser(path)))


def _absolute_if_there(source: str) -> str:
    """What exists here wins over the Hub, and what is spelt as a path is no id."""
    place = _absolute(Path(source))
    return str(place) if source.startswith((".", "~", os.sep)) or (source and os.path.exists(place)) else source


def _names(value: object) -> object:
    """`wandb,trackio`, or a list of such: all names one by one."""
    words = [value] if isinstance(value, str) else value
    if not isinstance(words, list | tuple) or not all(isinstance(word, str) for word in words):
        return value
    return tuple(dict.fromkeys(name.strip() for word in words for name in word.split(",") if name.strip()))


def _ascending(ids: tuple[int, ...]) -> tuple[int, ...]:
    if list(ids) != sorted(set(ids)):
        raise ValueError("Boundary ids should be in ascending order, each of them once")
    return ids


def _mix(text: str) -> str:
    Mix.parse(text)
    return text


AbsolutePath = Annotated[Path, Field(strict=False), AfterValidator(_absolute)]
Source = Annotated[str, Field(min_length=1), AfterValidator(_absolute_if_there)]
Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Boundary = Annotated[int, Field(strict=True, ge=0)]
LayerIds = Annotated[tuple[Boundary, ...], Field(strict=False, min_length=1), AfterValidator(_ascending)]


class TrainSettings(BaseModel):
    """None where no comment says otherwise: as the recipe of that kind of draft has it.

    Paths are absolute, wherever they were said. Raises UsageError for what contradicts itself or means nothing.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    # The verifier, and its states on what it said.
    verifier_name_or_path: Source
    data_path: AbsolutePath
    val_data_path: AbsolutePath | None = None  # None: nothing is held out
    total_seq_len: Count = 2048  # tokens of a packed row
    data_format_version: Literal[0, 1] | None = None  # of `data_{i}.pt`; None: as the files are
    layer_ids: LayerIds | None = None  # of `data_{i}.pt` that do not say it: boundary ids
    last_state: Literal["before-norm", "after-norm"] | None = None  # of the same: the last of each sample

    # The draft.
    draft: Kind
    draft_config: Source | None = None  # None: made of the verifier's config
    num_layers: Count | None = None  # None: as the draft's config says, or else its kind
    target_layers: LayerIds | None = None  # boundary ids that the draft is fed; None: as its config, or 2, N/2, N-3
    d2t_path: AbsolutePath | None = None  # None: the verifier's whole vocabulary
    t2d_path: AbsolutePath | None = None
    from_pretrained: Source | None = None  # None: a fresh draft

    # How it learns.
    epochs: Count = 10
    max_steps: Count | None = None  # of the optimiser; None: until the epochs are over
    lr: Positive | None = None
    optimizer: OptimiserName = "adamw"
    scheduler: ScheduleName = "cosine"
    warmup_ratio: Share = 0.03  # of all steps
    gradient_accumulation_steps: Count = 1
    learn_prompts: bool = False  # like answers, which alone are counted in what is held out
    loss: Annotated[str, AfterValidator(_mix)] | None = None  # `soft_ce`, or a mix: `soft_ce=1.0,tv=0.1`
    ttt_steps: Count | None = None
    ttt_step_loss_decay: Annotated[float, Field(gt=0, le=1)] | None = None
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0

    # The run, and what it leaves.
    save_path: AbsolutePath
    save_steps: Count | None = None  # None: at the end of each epoch only
    dtype: Literal["float32", "bfloat16", "float16"] | None = None  # of saved weights; None: as the verifier's
    with_head: bool | None = None  # store the shared head; None: leave it to the server, which has the verifier's
    resume_from_checkpoint: bool = True
    amp: bool | None = None  # bfloat16 where it is safe; None: on a GPU
    device: Annotated[str, Field(min_length=1)] | None = None
    parallel: Literal["ddp", "fsdp"] | None = None
    logger: Annotated[tuple[Logger, ...], BeforeValidator(_names), Field(strict=False)] = ()
    log_dir: AbsolutePath | None = None
    run_name: Annotated[str, Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def _means_something(self) -> TrainSettings:
        given = self.model_fields_set & {name for name, value in self if value is not None}
        for name, (kinds, why) in OF_KINDS.items():
            if name in given and self.draft not in kinds:
                raise UsageError(f"{option(name)} means nothing here: {self.draft} {why}", hint=_for(name, kinds))
        for pair in PAIRS:
            if len(there := given.intersection(pair)) == 1:
                (absent,) = set(pair) - there
                raise UsageError(f"{option(*there)} is given without {option(absent)}", hint="give both, or neither")
        if self.from_pretrained is not None and (fixed := [name for name in OF_A_NEW_DRAFT if name in given]):
            raise UsageError(
                f"{option(fixed[0])} is for a new draft: that of --from-pretrained has its shape and vocabulary",
                hint=f"leave out {option(fixed[0])}, or --from-pretrained",
            )
        if self.loss is not None and not Mix.parse(self.loss).on_logits and self.draft not in OF_STATES:
            raise UsageError(
                f"--loss {self.loss} teaches nothing to the head of {self.draft}",
                hint=f"add a loss on what the draft says: --loss {self.loss},soft_ce=0.1",
            )
        if "log_dir" in given and not self.logger:
            raise UsageError(
                "--log-dir is where trackers write, and there is none",
                hint="add --logger tensorboard; metrics.jsonl lies in --save-path",
            )
        return self

    @property
    def last(self) -> Literal["before_norm", "after_norm"] | None:
        """`last_state` as `open_data` takes it."""
        return LAST[self.last_state] if self.last_state else None


def _for(name: str, kinds: tuple[Kind, ...]) -> str:
    others = " and ".join(filter(None, (", ".join(kinds[:-1]), kinds[-1])))
    return f"leave {option(name)} out; it is for {others}"
