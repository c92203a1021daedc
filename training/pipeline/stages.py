"""The stages of a pipeline, as a table: which verb each runs, on what, and what it makes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from string import Formatter
from types import MappingProxyType
from typing import Any

NOTHING: Mapping[str, Any] = MappingProxyType({})
HELD_OUT = "-held-out"  # what the names of stages and things end in that are of conversations not learned from
PRINTED = "what a stage prints is shown and kept in its log"
WRITTEN = "the pipeline says where its files lie"
WHOLE = "what a run is made of is decided once, at the top of the file"
VOCABULARY = "[vocab] makes it"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A verb and its words. `{thing}` in them stands for things of the run: see `things`.

    A group of words is left out when this run has no such thing. ``also``: things that it reads unnamed, as far as they
    are there. ``asked_by``: tables of the file without which there is no such stage. ``table``: the one with the
    options of the verb. ``usual``: options unless that table says otherwise. ``refused``: options that are not the
    user's, and why. ``harmless``: options that do not change what comes out. ``files``: options that may name a file or
    a folder. ``moves``: what of the run's folder is moved aside before the stage begins anew. ``launched``: by
    torchrun, where there are several processes. ``about``: what it makes speaks of what it reads, and is wrong as soon
    as that is another.
    """

    name: str
    verb: str
    table: str
    words: tuple[tuple[str, ...], ...]
    makes: str
    moves: tuple[str, ...]
    also: tuple[str, ...] = ()
    asked_by: tuple[str, ...] = ()
    usual: Mapping[str, Any] = field(default_factory=lambda: NOTHING)
    refused: Mapping[str, str] = field(default_factory=lambda: NOTHING)
    harmless: frozenset[str] = frozenset()
    files: tuple[str, ...] = ()
    launched: bool = False
    about: bool = False

    @property
    def reads(self) -> tuple[str, ...]:
        """The things in its words, but for what it makes, and those that it reads unnamed."""
        named = [name for group in self.words for name in things_in(group)]
        return tuple(dict.fromkeys(name for name in (*named, *self.also) if name != self.makes))

    @property
    def held_out(self) -> bool:
        return self.name.endswith(HELD_OUT)


def things_in(words: Iterable[str]) -> tuple[str, ...]:
    return tuple(part[1] for word in words for part in Formatter().parse(word) if part[1])


def _states(part: str, folder: str) -> tuple[Stage, ...]:
    """From conversations to the verifier's states: the same for those that are learned from and those held out."""
    asked_by = ("held_out",) if part else ()
    return (
        Stage(
            name=f"regenerate{part}", verb="regenerate", table="regenerate",
            words=((f"{{sources{part}}}", f"{{answered{part}}}"), ("--verifier", "{verifier}")),
            makes=f"answered{part}", asked_by=(*asked_by, "regenerate"),
            moves=tuple(f"{folder}answered.{end}" for end in ("jsonl", "jsonl.partial", "report.json")),
            refused={"json": PRINTED}, harmless=frozenset({"endpoint", "concurrent_requests", "patience"}),
        ),
        Stage(
            name=f"prepare{part}", verb="prepare", table="prepare",
            words=((f"{{conversations{part}}}", f"{{prepared{part}}}"), ("--verifier", "{verifier}")),
            makes=f"prepared{part}", asked_by=asked_by, moves=(f"{folder}prepared",),
            refused={"json": PRINTED}, harmless=frozenset({"num_proc", "show_mask"}),
        ),
        Stage(
            name=f"generate{part}", verb="generate", table="generate",
            words=((f"{{prepared{part}}}", f"{{states{part}}}"), ("--verifier", "{verifier}")),
            makes=f"states{part}", asked_by=asked_by, moves=(f"{folder}states",),
            refused={"json": PRINTED},
            harmless=frozenset({"batch_tokens", "batching", "device", "tensor_parallel_size", "verbose"}),
        ),
    )  # fmt: skip


STAGES = (
    *_states("", ""),
    *_states(HELD_OUT, "held-out/"),
    Stage(
        name="vocab", verb="vocab", table="vocab",
        words=(("{states}", "{vocabulary}"), ("--verifier", "{verifier}")),
        makes="vocabulary", asked_by=("vocab",), moves=("vocabulary",),
        refused={"json": PRINTED, "force": "another vocabulary is moved aside", "target_vocab_size": WHOLE},
    ),
    Stage(
        name="train", verb="train", table="train",
        words=(
            ("--verifier-name-or-path", "{verifier}"),
            ("--data-path", "{states}"),
            ("--val-data-path", "{states-held-out}"),
            ("--d2t-path", "{vocabulary}/d2t.npy", "--t2d-path", "{vocabulary}/t2d.npy"),
            ("--save-path", "{training}"),
        ),
        makes="training", moves=("training",), launched=True,
        refused={
            "json": PRINTED, "config": WHOLE, "dump_config": WHOLE, "d2t_path": VOCABULARY, "t2d_path": VOCABULARY,
            "val_data_path": "[held_out] makes it", "layer_ids": "the states of a run say it themselves",
            "last_state": "the states of a run say it themselves", "data_format_version": WRITTEN,
            "resume_from_checkpoint": "--from train begins anew",
        },
        harmless=frozenset({"logger", "log_dir", "run_name", "device", "save_steps"}),
        files=("draft_config", "from_pretrained"),
    ),
    Stage(
        name="validate", verb="validate", table="validate",
        words=(("{draft}", "--verifier", "{verifier}", "--output", "json={validation}"),),
        makes="validation", moves=("validation.json",),
        usual={"level": "tensors", "isolated": True},
        refused={"json": WRITTEN, "format": WRITTEN, "files": WRITTEN}, files=("prompts",), about=True,
    ),
    Stage(
        name="evaluate", verb="evaluate", table="evaluate",
        words=(("{draft}", "--verifier", "{verifier}", "--output", "{evaluation}"),),
        makes="evaluation", asked_by=("evaluate",), moves=("evaluation.json",),
        refused={"json": PRINTED, "report": "the last stage writes one"}, harmless=frozenset({"verbose"}),
        files=("prompts",), about=True,
    ),
    Stage(
        name="report", verb="report", table="report",
        words=(("{run}",),), also=("training", "vocabulary", "validation", "evaluation"),
        makes="report", moves=("report.html",), about=True,
        refused={"output": WRITTEN, "json": PRINTED},
    ),
)  # fmt: skip
NAMES = tuple(stage.name for stage in STAGES)
TABLES = tuple(dict.fromkeys(stage.table for stage in STAGES))
