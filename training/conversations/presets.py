"""Data sets that have a short name here, since most drafts are trained on them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Preset:
    """``dataset``: the id on the Hub with configuration and split. ``columns``: those that say the conversation."""

    dataset: str
    columns: tuple[str, ...]


PRESETS: Mapping[str, Preset] = {
    "sharegpt": Preset("Aeala/ShareGPT_Vicuna_unfiltered:train", ("conversations",)),
    "ultrachat": Preset("HuggingFaceH4/ultrachat_200k:train_sft", ("messages",)),
    "gsm8k": Preset("openai/gsm8k:main:train", ("question", "answer")),
}
