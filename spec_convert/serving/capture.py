"""Capturing the verifier's hidden states with vLLM: what it is started with, and reading what it wrote."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from spec_convert.errors import UsageError
from spec_convert.verifier import Verifier

# In the response's `kv_transfer_params`, and in the connector's `kv_connector_extra_config`.
PATH = "hidden_states_path"
LAYERS = "layer_ids"
STORAGE = "shared_storage_path"
DTYPE = "dtype"
CONNECTOR = ("HiddenStatesConnector", "spec_convert.serving.capture_connector")
OURS = (  # options of vLLM that would undo the capture
    "--speculative-config", "-sc", "--kv-transfer-config", "--enable-prefix-caching", "--no-enable-prefix-caching",
)  # fmt: skip
MODEL = ("--model", "--revision")


def capture_arguments(layer_ids: Sequence[int], storage: Path, *, dtype: str | None = None) -> dict[str, Any]:
    """The arguments of vLLM's `LLM` with which it writes the states of ``layer_ids`` (boundary ids) of every request.

    vLLM sorts the ids. ``dtype``: of the files; None: the model's own. Prefixes are not shared between requests: a
    text whose beginning lay in the cache would have no states there.
    """
    name, module = CONNECTOR
    return {
        "speculative_config": {
            "method": "extract_hidden_states",
            "num_speculative_tokens": 1,
            "draft_model_config": {"hf_config": {"eagle_aux_hidden_state_layer_ids": sorted(layer_ids)}},
        },
        "kv_transfer_config": {
            "kv_connector": name,
            "kv_connector_module_path": module,
            "kv_role": "kv_producer",
            "kv_connector_extra_config": {STORAGE: str(storage), DTYPE: dtype},
        },
        "enable_prefix_caching": False,
    }


def capture_command(
    verifier: Verifier, layer_ids: Sequence[int], storage: Path, *, dtype: str, extra: Sequence[str] = ()
) -> list[str]:
    """`vllm serve` with which it answers as ever and writes the states of ``layer_ids`` of every request.

    The words of a command line; ``extra``, options of vLLM, comes last, unchanged. Raises UsageError for one that
    would replace the model or undo the capture.
    """
    from spec_convert.serving.command import command_line, refuse_options

    hint = "change the command that --dry-run prints"
    refuse_options(extra, MODEL, "would replace the model whose states are captured", hint)
    refuse_options(extra, OURS, "would replace what makes vLLM capture hidden states", hint)
    model = {"model": verifier.name} | ({"revision": verifier.files.revision} if verifier.pinned else {})
    return command_line(model | capture_arguments(layer_ids, storage, dtype=dtype), extra)


def default_storage() -> Path:
    """Where a server writes the states unless it is told: a folder of this user among the temporary ones."""
    return Path(tempfile.gettempdir()) / f"spec-convert-states-{os.getuid()}"


def make_storage(storage: Path) -> None:
    """Raises UsageError when the folder cannot be made or written to: vLLM would find out after its start."""
    try:
        storage.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as reason:
        raise UsageError(f"cannot make {storage}: {reason.strerror}", hint="give another --storage") from reason
    if not os.access(storage, os.W_OK | os.X_OK):
        raise UsageError(f"cannot write to {storage}", hint="give another --storage")


def failure_of(path: Path) -> Path:
    """Where the connector says why the file ``path`` could not be written."""
    return path.with_suffix(".error")


def default_layers(num_hidden_layers: int) -> tuple[int, ...]:
    """What an EAGLE-3 draft is fed, `2, N//2, N-3`, and N, what the verifier's head is fed: boundary ids.

    Raises UsageError for a verifier of so few layers that these are not four in ascending order.
    """
    ids = (2, num_hidden_layers // 2, num_hidden_layers - 3, num_hidden_layers)
    if list(ids) != sorted(set(ids)):
        raise UsageError(
            f"a verifier of {num_hidden_layers} layers has no layers {', '.join(map(str, ids))} in this order",
            hint=f"name the layers: --layers 1,{num_hidden_layers}",
        )
    return ids


def require_layers(layer_ids: Sequence[int], num_hidden_layers: int) -> tuple[int, ...]:
    """``layer_ids`` as given, when they are boundary ids of the verifier in ascending order. Raises UsageError."""
    ids = tuple(layer_ids)
    if not ids or list(ids) != sorted(set(ids)) or ids[0] < 0 or ids[-1] > num_hidden_layers:
        raise UsageError(
            f"the layers {','.join(map(str, ids))} are not ascending boundary ids from 0 to {num_hidden_layers}",
            hint="id k is what enters layer k, and the number of layers what leaves the last one",
        )
    return ids
