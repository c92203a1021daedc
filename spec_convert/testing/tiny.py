"""Tiny checkpoints on disk: of any installed format, and of a verifier that they fit."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zlib import crc32

from spec_convert.conversion import DTYPES
from spec_convert.errors import UsageError
from spec_convert.example import Example, Sizes
from spec_convert.operations import Cast, Header
from spec_convert.registry import registry
from spec_convert.tensor import FLOATS
from spec_convert.writer import header_bytes

if TYPE_CHECKING:
    import numpy as np


def tiny_checkpoint(format: str, folder: Path, *, dtype: str = "F32", **sizes: int) -> Path:  # noqa: A002
    """Write a tiny checkpoint of an installed format and return its folder.

    ``sizes`` are fields of `Sizes`, ``dtype`` the safetensors code of its weights. The same arguments give the same
    bytes. Raises UsageError for a format that is not installed or has no `example`.
    """
    return write_example(example_of(format, **sizes), folder, dtype=dtype)


def tiny_verifier(folder: Path, **sizes: int) -> Path:
    """Write a verifier that the tiny checkpoints of these sizes fit: its config, its embedding and its head."""
    size = sizes_of(sizes)
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": size.hidden,
        "intermediate_size": size.inner, "num_hidden_layers": size.verifier_layers, "num_attention_heads": size.heads,
        "num_key_value_heads": size.kv_heads, "head_dim": size.head_dim, "vocab_size": size.vocabulary,
        "hidden_act": "silu", "rms_norm_eps": 1e-6, "max_position_embeddings": 2048, "rope_theta": 500000.0,
        "tie_word_embeddings": False,
    }  # fmt: skip
    table = (size.vocabulary, size.hidden)
    shapes = {"model.embed_tokens.weight": table, "lm_head.weight": table}
    return write_example(Example(config=config, shapes=shapes), folder)


def example_of(format: str, **sizes: int) -> Example:  # noqa: A002
    """The example that an installed format gives in these sizes."""
    make = registry()[format].example
    if make is None:
        hint = "give its `Format` an `example=`: a function from `Sizes` to `Example`"
        raise UsageError(f"the format `{format}` has no example of a checkpoint", hint=hint)
    return make(sizes_of(sizes))


def sizes_of(given: Mapping[str, int]) -> Sizes:
    """The usual sizes with some changed."""
    known = [field.name for field in fields(Sizes)]
    if unknown := sorted(set(given) - set(known)):
        raise UsageError(f"there is no size `{unknown[0]}`", hint=f"one of {', '.join(known)}")
    return Sizes(**given)


def write_example(example: Example, folder: Path, *, dtype: str = "F32") -> Path:
    """Write an example, changed or not: config.json and one weight file, its tensors in the order of ``shapes``."""
    if dtype not in FLOATS:
        raise UsageError(f"weights cannot be written as `{dtype}`", hint=f"one of {', '.join(sorted(FLOATS))}")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(example.config, indent=2) + "\n", encoding="utf-8")
    tensors = tensors_of(example, dtype)
    file = folder / example.file
    if file.suffix == ".safetensors":
        headers = {name: header for name, (header, _) in tensors.items()}
        file.write_bytes(header_bytes(headers) + b"".join(array.tobytes() for _, array in tensors.values()))
    else:
        _save_with_torch(tensors, file, dtype)
    return folder


def tensors_of(example: Example, dtype: str) -> dict[str, tuple[Header, np.ndarray]]:
    """Header and values of each tensor: of weights, random numbers that its name and shape decide.

    So two that change places are seen, and a head of few tokens is not the beginning of the verifier's.
    """
    import numpy as np

    made: dict[str, tuple[Header, Any]] = {}
    for name, shape in example.shapes.items():
        random = np.random.default_rng([crc32(name.encode()), *shape])
        numbers = random.standard_normal(shape, np.float32) * np.float32(0.3)
        made[name] = (Header(dtype, shape), numbers if dtype == "F32" else _cast(numbers, dtype))
    for name, values in example.values.items():
        marks = all(isinstance(value, bool) for value in values)
        array: np.ndarray = np.array(values, dtype=np.bool_ if marks else np.int64)
        made[name] = (Header("BOOL" if marks else "I64", array.shape), array)
    return made


def _cast(numbers: np.ndarray, dtype: str) -> np.ndarray:
    (cast,) = Cast(dtype, "F32").run([numbers], [Header(dtype, numbers.shape)])
    return cast


def _save_with_torch(tensors: Mapping[str, tuple[Header, np.ndarray]], file: Path, dtype: str) -> None:
    import torch

    from spec_convert.models.load import as_torch

    (name,) = [name for name, code in DTYPES.items() if code == dtype]
    kind = getattr(torch, name)
    torch.save({name: as_torch(array, header.dtype, kind) for name, (header, array) in tensors.items()}, file)
