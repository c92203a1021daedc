"""Which files of a checkpoint hold its weights: the usual names first, never the leftovers of a training run."""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import translate
from pathlib import PurePath

from spec_convert.containers.refusal import few, unreadable

USUAL = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
# What home-made trainers and head-only drafts call their one file.
WELL_KNOWN = (
    "model.pt",
    "eagle_model.pt",
    "draft_model.pt",
    "medusa_lm_head.safetensors",
    "medusa_lm_head.pt",
    "hydra_lm_head.safetensors",
    "hydra_lm_head.pt",
)
SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".ckpt")
# They can hold anything, so they are not opened at all.
LEFTOVERS = (
    "training_state*", "training_args*", "optimizer*", "scheduler*", "random_states*", "rng_state*", "trainer_state*",
    "eagle_meta.pt", "eagle3_meta.pt", "token_freq.pt", "*.distcp",
)  # fmt: skip

TOKEN_LIST = re.compile(r"freq_\d+\.pt")  # FR-Spec's lists of frequent tokens, as SGLang takes them

_LEFTOVER = re.compile("|".join(map(translate, LEFTOVERS)))


def is_leftover(name: str) -> bool:
    return _LEFTOVER.match(name) is not None


def is_token_list(name: str) -> bool:
    return TOKEN_LIST.fullmatch(name) is not None


def choose_weights(names: Iterable[str], *, source: str) -> str:
    """The weight file, or the index of several."""
    there = frozenset(names)
    for name in USUAL:
        if name in there:
            return name
    candidates = _one_per_stem([name for name in WELL_KNOWN if name in there] or _others(there))
    if len(candidates) == 1:
        return candidates[0]
    if candidates:
        listed = ", ".join(candidates)
        raise unreadable("ambiguous-weights", source, f"holds several weight files: {listed}", "Name the file instead.")
    raise _nothing(there, source)


def _others(there: frozenset[str]) -> list[str]:
    return sorted(
        name
        for name in there
        if name.endswith(SUFFIXES) and not name.startswith(".") and not is_leftover(name) and not is_token_list(name)
    )


def _one_per_stem(names: list[str]) -> list[str]:
    """The Hub's duplicates hold the same weights twice: safetensors wins over a pickle of the same name."""
    safe = {PurePath(name).stem for name in names if name.endswith(".safetensors")}
    return [name for name in names if name.endswith(".safetensors") or PurePath(name).stem not in safe]


def _nothing(there: frozenset[str], source: str) -> Exception:
    leftovers = [name for name in there if is_leftover(name)]
    if any(name.endswith(".distcp") for name in leftovers):
        hint = "Merge them first: python -m torch.distributed.checkpoint.format_utils dcp_to_torch FOLDER model.pt"
        return unreadable("no-weights", source, f"holds only distributed shards ({few(leftovers)})", hint)
    hint = "A draft needs model.safetensors or pytorch_model.bin (or their index)."
    if leftovers:
        message = f"holds no weights, only leftovers of training, which are never opened: {few(leftovers)}"
        return unreadable("no-weights", source, message, hint)
    if gguf := [name for name in there if name.endswith(".gguf")]:
        message = f"holds only GGUF files of llama.cpp ({few(gguf)})"
        return unreadable("no-weights", source, message, "Take the checkpoint that they were made from.")
    message = f"holds no weight file; it holds {few(there, most=5)}" if there else "holds no files"
    return unreadable("no-weights", source, message, hint)
