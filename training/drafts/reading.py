"""Draft configs: the ready ones by name, and files, such as the config.json that other trainers take."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from spec_convert.containers.strict_json import parse_object
from spec_convert.errors import Refused, UsageError
from spec_convert.facts import Facts
from spec_convert.formats import Request
from spec_convert.plugins.families.neutral import NEUTRAL, not_neutral
from spec_convert.plugins.families.rope import rope
from spec_convert.training.drafts.shape import DraftShape, parsed

CONFIGS = "spec_convert.training.configs"
# Which kind of draft a class of SpecForge is. Its trainer counts the outputs of layers, one less than the boundary ids
# meant here, and never norms the state that it feeds back: its `norm_output` speaks of the norm before the head.
SPECFORGE = {
    "LlamaForCausalLMEagle3": "eagle3",
    "LlamaForCausalLMEagle3SharedHead": "eagle3-shared-head",
    "PEagleDraftModel": "p-eagle",
}
# Keys of a config.json that choose nothing here.
SAY_NOTHING = frozenset({
    "_name_or_path", "architectures", "attention_dropout", "bos_token_id", "dtype", "eos_token_id",
    "initializer_range", "max_window_layers", "pad_token_id", "sliding_window", "target_model_type", "torch_dtype",
    "transformers_version", "use_cache",
})  # fmt: skip
# Keys that may be there with one value only: with another one it would be a draft that is not built here.
ONLY = {"tie_word_embeddings": False, "bias": False, "pretraining_tp": 1}
IDS = "eagle_aux_hidden_state_layer_ids"
VERIFIERS = {"vocab_size": "vocab_size", "target_hidden_size": "hidden_size"}
TRANSLATED = frozenset({
    *ONLY, *NEUTRAL, "rope_parameters", "rope_scaling", "rope_theta", "eagle_config", IDS, "num_aux_hidden_states",
    "fc_norm", "use_aux_norm", "norm_output",
})  # fmt: skip


def ready_configs() -> dict[str, Traversable]:
    """The draft configs that come with this package, by name."""
    inside = [file for file in files(CONFIGS).iterdir() if file.name.endswith(".toml")]
    return {file.name.removesuffix(".toml"): file for file in sorted(inside, key=lambda file: file.name)}


def read_shape(source: str | Path) -> DraftShape:
    """The choices of a ready config or of a file, `.toml` or `.json`. Raises UsageError or Unreadable."""
    path, ready = Path(source), ready_configs()
    if str(source) in ready and not path.exists():
        return read_choices(_toml(ready[str(source)], str(source)), str(source))
    if path.is_dir():
        hint = f"name a file, or go on with the weights in it: `--from-pretrained {path}`"
        raise UsageError(f"the draft config {source} is a folder", hint=hint)
    if path.suffix not in READERS or not path.exists():
        hint = f"give a file, `….toml` or `….json`, or one of {', '.join(ready)}"
        raise UsageError(f"there is no draft config {source}", hint=hint)
    return read_choices(READERS[path.suffix](path, str(source)), str(source))


def read_choices(config: Mapping[str, Any], where: str) -> DraftShape:
    """The choices in the words of `DraftShape`, or in those of the config.json of other trainers.

    Keys that are null choose nothing. Raises UsageError for everything that is not understood.
    """
    given = {key: value for key, value in config.items() if value is not None and key not in SAY_NOTHING}
    if "speculators_model_type" in given:
        raise UsageError(f"{where} is of a unified draft", hint="`--from-pretrained FOLDER` goes on with that draft")
    names = config.get("architectures")
    kind = next((SPECFORGE[name] for name in SPECFORGE if isinstance(names, list) and name in names), None)
    _require_only(given, where)
    choices = _plain(given, where) | _layer_ids(given, where, counts_outputs=kind is not None)
    choices |= _norms(given, where, by_specforge=kind is not None)
    if kind is not None:
        choices["draft"] = kind
    if made_for := {ours: choices.pop(key) for key, ours in VERIFIERS.items() if key in choices}:
        if "verifier" in choices:
            raise UsageError(
                f"{where}: facts of the verifier stand in `verifier` and beside it", hint="put them in one place"
            )
        choices["verifier"] = made_for
    return parsed(choices, where)


def _toml(file: Path | Traversable, where: str) -> dict[str, Any]:
    try:
        return tomllib.loads(_bytes(file, where).decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"the draft config {where} is no TOML: {error}") from error


def _json(file: Path, where: str) -> dict[str, Any]:
    return parse_object(_bytes(file, where), where=where, rule="config-unreadable")


READERS = {".toml": _toml, ".json": _json}


def _bytes(file: Path | Traversable, where: str) -> bytes:
    try:
        return file.read_bytes()
    except OSError as reason:
        raise UsageError(f"the draft config {where} cannot be read: {reason.strerror}") from reason


def _require_only(given: Mapping[str, Any], where: str) -> None:
    for key, value in ONLY.items():
        if given.get(key, value) != value:
            raise UsageError(f"{where}: {key} is {given[key]!r}, and drafts are trained here with {value!r} only")


def _plain(given: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The keys that mean the same there and here, and the rotation in the keys meant here, however it was written."""
    try:
        if findings := not_neutral(Facts(given, where)):
            raise Refused(findings)
        theta, scaling, absent = rope(Facts(given, where), Request())
    except Refused as refused:
        raise UsageError(refused.message, hint=refused.hint) from refused
    turned = {"rope_theta": None if absent else theta, "rope_scaling": scaling}
    kept = {key: value for key, value in given.items() if key not in TRANSLATED}
    return kept | {key: value for key, value in turned.items() if value is not None}


def _layer_ids(given: Mapping[str, Any], where: str, *, counts_outputs: bool) -> dict[str, Any]:
    """The boundary ids. Raises UsageError where it cannot be known how they were counted."""
    nested = given.get("eagle_config", {})
    if not isinstance(nested, dict) or nested.keys() - {IDS, "use_aux_hidden_state"}:
        raise UsageError(f"{where}: eagle_config is {nested!r}: of it only {IDS} is known here")
    if nested.get("use_aux_hidden_state", True) is not True:
        raise UsageError(f"{where}: use_aux_hidden_state is off: EAGLE-3 fuses such states", hint="see `--draft eagle`")
    top, inside = given.get(IDS), nested.get(IDS)
    ids = top or inside
    if ids is None:
        return {}
    if not isinstance(ids, list) or not all(type(layer) is int for layer in ids):
        raise UsageError(f"{where}: {IDS} is {ids!r}, no list of layers")
    if given.get("num_aux_hidden_states", len(ids)) != len(ids):
        raise UsageError(f"{where}: num_aux_hidden_states is {given['num_aux_hidden_states']}, and {IDS} {ids}")
    if "target_layers" in given:
        raise UsageError(f"{where}: target_layers and {IDS} say the same thing", hint="leave the second out")
    if (top is not None) == counts_outputs or (inside or ids) != ids:
        either = f"`--target-layers {_listed(ids)}` or `--target-layers {_listed([layer + 1 for layer in ids])}`"
        message = f"{where}: the layers {ids} may be counted by their inputs or by their outputs"
        raise UsageError(message, hint=f"take them out and say {either}")
    return {"target_layers": [layer + 1 for layer in ids] if counts_outputs else ids}


def _listed(ids: list[int]) -> str:
    return ",".join(map(str, ids))


def _norms(given: Mapping[str, Any], where: str, *, by_specforge: bool) -> dict[str, Any]:
    norms = {key: given[key] for key in ("fc_norm", "norm_output") if key in given}
    if "use_aux_norm" in given:
        norms.setdefault("fc_norm", given["use_aux_norm"])
    if by_specforge and norms.pop("norm_output", True) is False:
        raise UsageError(f"{where}: norm_output is false: no norm before the head, which no server computes")
    return norms
