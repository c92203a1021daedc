"""`data_config.json`: what a folder of the community's files says of itself, and what we add to it."""

from __future__ import annotations

import json
import shlex
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from spec_convert.errors import UsageError
from spec_convert.training.store.manifest import LayerFacts, Manifest, TokenizerFacts, replace_text

NAME = "data_config.json"
OURS = "spec_convert"  # the key of our own facts among the community's


class PtFacts(BaseModel):
    """What must be known of the files, and what those of others do not say."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    samples: int
    tokenizer: TokenizerFacts
    layers: LayerFacts


def facts_of(manifest: Manifest) -> PtFacts:
    """Of a finished folder; its manifest has layers."""
    assert manifest.layers is not None
    return PtFacts(samples=manifest.samples, tokenizer=manifest.tokenizer, layers=manifest.layers)


def write_data_config(folder: Path, manifest: Manifest) -> None:
    """The community's fields, of which no reader depends on any, and our own. The manifest has layers."""
    facts = facts_of(manifest)
    layers = facts.layers
    config = {
        "version": "2.0",
        "generated_at": datetime.now(UTC).isoformat(),
        "reproducibility": {
            "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
            "package_versions": manifest.made_with,
            "gpu": _device(),
        },
        "model": {"target_model_path": manifest.tokenizer.name, "hidden_size": layers.hidden_size},
        "data": {"num_samples": facts.samples, **manifest.counts},
        "hidden_states": {"layer_ids": list(layers.ids), "description": _description(layers)},
        "generation": manifest.request,
        "format": {"file_pattern": "data_{idx}.pt", "schema": _schema(layers)},
        OURS: facts.model_dump(mode="json"),
    }
    replace_text(folder / NAME, json.dumps(config, indent=2) + "\n")


def read_facts(folder: Path) -> PtFacts | None:
    """Our own facts; None where the folder is somebody else's. Raises UsageError when they are damaged."""
    path = folder / NAME
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read: {error}", hint="mend it, or write the folder anew") from error
    if not isinstance(config, dict) or OURS not in config:
        return None
    try:
        return PtFacts.model_validate_json(json.dumps(config[OURS]))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, (OURS, *first["loc"])))
        raise UsageError(f"{path}: {where}: {first['msg']}", hint="it is damaged: write the folder anew") from error


def _description(layers: LayerFacts) -> str:
    return (
        "boundary ids: id k is what enters layer k, as in `hidden_states[k]` of transformers; "
        f"id {layers.num_hidden_layers} is what leaves the last layer, before the final norm"
    )


def _schema(layers: LayerFacts) -> dict[str, Any]:
    return {
        "input_ids": {"dtype": "torch.int64", "shape": "[seq_len]"},
        "hidden_states": {
            "dtype": f"list[torch.{layers.dtype}]",
            "shape": f"list of [seq_len, {layers.hidden_size}]",
            "num_tensors": len(layers.ids),
        },
        "loss_mask": {
            "dtype": "torch.int64",
            "shape": "[seq_len]",
            "description": "1 for the tokens of answers, their end-of-turn tokens included",
        },
        "index": {"dtype": "int", "description": "which sample of the prepared data it is"},
    }


def _device() -> str:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
