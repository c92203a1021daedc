"""The verifier that a draft was trained for: the facts of its config, and where its embedding and head lie."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from spec_convert.checkpoint import Checkpoint
from spec_convert.errors import Unreadable
from spec_convert.open import open_checkpoint, read_config
from spec_convert.rules import found
from spec_convert.sources import locate
from spec_convert.tensor import Files

EMBEDDINGS = (
    "model.embed_tokens.weight",
    "embed_tokens.weight",
    "model.language_model.embed_tokens.weight",  # Qwen3-VL, Qwen3.5, and what transformers 5 saves
    "language_model.model.embed_tokens.weight",  # Llama-4, Gemma-3, Mistral-3, Llava, Kimi
    "language_model.embed_tokens.weight",
    "model.text_model.embed_tokens.weight",  # SmolVLM
    "thinker.model.embed_tokens.weight",  # Qwen-Omni
    "transformer.wte.weight",
)
NESTED = ("text_config", "llm_config", "language_config")  # where configs of several models keep the language model's
DRAFT_MARKS = ("speculators_model_type", "draft_vocab_size", "eagle_config")  # keys that no full model has
HEADS = ("lm_head.weight", "language_model.lm_head.weight", "thinker.lm_head.weight")
_A_FILE, _NO_CONFIG = "is a file, and servers load a model from its folder", "has no config.json"


@dataclass(frozen=True)
class Verifier:
    """A verifier seen through its config.json; its tensors are opened only when somebody asks for them.

    ``name`` is what the unified config refers to: a Hub id, or the absolute path of a local folder, since servers
    resolve it from wherever they are started.
    """

    name: str
    files: Files
    config: Mapping[str, Any]
    pinned: bool = False  # to a revision that was asked for: servers must be told, since the name leaves it out

    @cached_property
    def text_config(self) -> Mapping[str, Any]:
        """Where a multimodal model keeps the facts of its language model; else the config itself."""
        thinker = self.config.get("thinker_config")
        whole = thinker if isinstance(thinker, dict) else self.config
        nested = (part for key in NESTED if isinstance(part := whole.get(key), dict))
        return next(nested, whole)

    @property
    def architectures(self) -> list[str]:
        names = self.config.get("architectures")
        return [str(name) for name in names] if isinstance(names, list) else []

    @property
    def hidden_size(self) -> int:
        return self._number("hidden_size", dimension=1)

    @property
    def vocab_size(self) -> int:
        return self._number("vocab_size", dimension=0)

    @property
    def num_hidden_layers(self) -> int:
        return self._number("num_hidden_layers")

    @cached_property
    def checkpoint(self) -> Checkpoint:
        return open_checkpoint(self.name, revision=self.files.revision)

    @property
    def embedding_name(self) -> str:
        return self._first(EMBEDDINGS, "token embedding")

    @property
    def head_name(self) -> str:
        """The output head; without one the embedding, unless config.json says that the two are not tied.

        Configs leave `tie_word_embeddings` out where true is the default of their class.
        """
        said = {self.config.get("tie_word_embeddings"), self.text_config.get("tie_word_embeddings")}
        if not any(name in self.checkpoint for name in HEADS) and (True in said or False not in said):
            return self.embedding_name
        return self._first(HEADS, "output head")

    def _number(self, key: str, dimension: int | None = None) -> int:
        """A fact of the config. Nested ones leave out what is usual for their class: the embedding then tells it."""
        value = self.text_config.get(key)
        if value is None and dimension is not None and self.text_config is not self.config:
            value = self.checkpoint.tensors[self.embedding_name].shape[dimension]
        if isinstance(value, bool) or not isinstance(value, int) or value <= 0:
            said = "has no" if value is None else f"says {value!r} for"
            raise Unreadable(
                found(
                    "verifier-unusable", where=f"{self.name}: config.json", message=f"{said} `{key}`",
                    hint="`--verifier` must name the full model that the draft was trained for",
                )
            )  # fmt: skip
        return value

    def _first(self, names: tuple[str, ...], what: str) -> str:
        for name in names:
            if name in self.checkpoint:
                return name
        raise Unreadable(
            found(
                "verifier-unusable", where=self.name, message=f"has no {what} under any name known here",
                hint=f"looked for {', '.join(names)}",
            )
        )  # fmt: skip


def open_verifier(source: str | Path, *, revision: str | None = None) -> Verifier:
    """The verifier at a folder or Hub id; reads nothing but its config.json. Raises Unreadable."""
    files, file = locate(source, revision)
    if file is not None:
        raise _unusable(source, _A_FILE)
    config = read_config(files)
    if config is None:
        raise _unusable(source, _NO_CONFIG)
    if marks := [key for key in DRAFT_MARKS if config.get(key) is not None]:
        raise _unusable(source, f"is itself a draft: its config.json has `{marks[0]}`")
    text = str(source)
    if os.path.exists(text):
        return Verifier(os.path.abspath(text), files, config)
    name, _, wanted = text.removeprefix("hf://").partition("@")
    return Verifier(name, files, config, pinned=bool(revision or wanted))


def verifier_of(checkpoint: Checkpoint) -> Verifier:
    """The model that ``checkpoint`` is, seen as the verifier of the draft inside it."""
    if os.path.isfile(checkpoint.source):
        raise _unusable(checkpoint.source, _A_FILE)
    if checkpoint.config is None:
        raise _unusable(checkpoint.source, _NO_CONFIG)
    if os.path.exists(checkpoint.source):
        return Verifier(os.path.abspath(checkpoint.source), checkpoint.files, checkpoint.config)
    name, _, wanted = checkpoint.source.removeprefix("hf://").partition("@")
    return Verifier(name, checkpoint.files, checkpoint.config, pinned=bool(wanted))


def _unusable(source: str | Path, message: str) -> Unreadable:
    hint = "`--verifier` takes the full model that the draft was trained for: a model folder or a Hub id"
    return Unreadable(found("verifier-unusable", where=str(source), message=message, hint=hint))
