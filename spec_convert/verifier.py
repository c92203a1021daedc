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
    "model.language_model.embed_tokens.weight",
    "language_model.model.embed_tokens.weight",
    "transformer.wte.weight",
)
DRAFT_MARKS = ("speculators_model_type", "draft_vocab_size", "eagle_config")  # keys that no full model has
HEADS = ("lm_head.weight", "language_model.lm_head.weight")


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
        nested = self.config.get("text_config")
        return nested if isinstance(nested, dict) else self.config

    @property
    def architectures(self) -> list[str]:
        names = self.config.get("architectures")
        return [str(name) for name in names] if isinstance(names, list) else []

    @property
    def hidden_size(self) -> int:
        return self._number("hidden_size")

    @property
    def vocab_size(self) -> int:
        return self._number("vocab_size")

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

    def _number(self, key: str) -> int:
        value = self.text_config.get(key)
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
        raise _unusable(source, "is a file, and servers load a model from its folder")
    config = read_config(files)
    if config is None:
        raise _unusable(source, "has no config.json")
    if marks := [key for key in DRAFT_MARKS if config.get(key) is not None]:
        raise _unusable(source, f"is itself a draft: its config.json has `{marks[0]}`")
    text = str(source)
    if os.path.exists(text):
        return Verifier(os.path.abspath(text), files, config)
    name, _, wanted = text.removeprefix("hf://").partition("@")
    return Verifier(name, files, config, pinned=bool(revision or wanted))


def _unusable(source: str | Path, message: str) -> Unreadable:
    hint = "`--verifier` takes the full model that the draft was trained for: a model folder or a Hub id"
    return Unreadable(found("verifier-unusable", where=str(source), message=message, hint=hint))
