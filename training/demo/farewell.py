"""What the demo ends with: the same for a model of one's own, and where everything lies."""

from __future__ import annotations

from collections.abc import Iterator
from textwrap import indent

from spec_convert.training.demo.chapters import Places
from spec_convert.training.demo.typed import as_typed

BASE = "Qwen/Qwen3-8B"
QUESTIONS = "ultrachat"


def own_model(places: Places) -> Iterator[tuple[str, ...]]:
    """The commands for a model of the Hub: the first does what the demo has done command by command."""
    yield (
        "pipeline", "--folder", "run", "--verifier", BASE, "--source", QUESTIONS, "--regenerate",
        "--max-samples", "50000", "--draft-vocab-size", "32000", "--prompts", str(places.held_out.questions),
    )  # fmt: skip
    yield ("serve", "run/training/epoch_0010")


def farewell(places: Places) -> str:
    commands = "\n".join(as_typed(["spec-convert", *command]) for command in own_model(places))
    return f"""
The page: {places.run.report}
The draft, for vLLM: {places.converted}

The same for a model of your own, on a machine with a GPU:
{indent(commands, "  ")}"""
