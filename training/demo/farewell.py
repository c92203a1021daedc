"""What the demo ends with: the same for a model of one's own, and where everything lies."""

from __future__ import annotations

from collections.abc import Iterator
from textwrap import indent

from spec_convert.training.demo.chapters import Places
from spec_convert.training.demo.typed import as_typed

BASE = "Qwen/Qwen3-8B"
QUESTIONS = "ultrachat"


def own_model() -> Iterator[tuple[str, ...]]:
    """The commands for a model of the Hub, as the demo has run them for its own; vLLM answers where it is installed."""
    yield ("regenerate", QUESTIONS, "answered.jsonl", "--verifier", BASE, "--max-samples", "50000")
    yield ("prepare", "answered.jsonl", "prepared", "--verifier", BASE)
    yield ("generate", "prepared", "states")
    yield ("vocab", "states", "vocabulary")
    yield (
        "train", "--draft", "eagle3", "--verifier", BASE, "--data-path", "states",
        "--d2t-path", "vocabulary/d2t.npy", "--t2d-path", "vocabulary/t2d.npy", "--save-path", "training",
    )  # fmt: skip
    yield ("evaluate", "training/epoch_0010", "--prompts", "prompts.jsonl", "--engine", "vllm")
    yield ("serve", "training/epoch_0010")


def farewell(places: Places) -> str:
    commands = "\n".join(as_typed(["spec-convert", *command]) for command in own_model())
    return f"""
The page: {places.run.report}
The draft, for vLLM: {places.converted}

The same for a model of your own, on a machine with a GPU:
{indent(commands, "  ")}"""
