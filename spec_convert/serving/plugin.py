"""What vLLM calls in every one of its processes (entry point `vllm.general_plugins`).

It teaches vLLM two `speculators_model_type`s: `eagle` with a fusion bias or layernorms, and `eagle_mlp`. Everything
else stays vLLM's: plain EAGLE drafts, which carry vLLM's own `model_type`, eagle3 and peagle, except that Qwen3 layers
with biases that vLLM would drop get a model with a place for them, and dflash and dspark, except that windows are read
as they are meant. Nothing heavy is imported here: vLLM loads the model classes when it first needs one.

A vLLM that lacks an interface is told so in its log and goes on: it may be serving something that is none of ours, and
an exception here would stop it. A draft of ours then fails as an unknown type, right below that line. An untested
version is mentioned only when a draft of ours is loaded, for the same reason.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import cache, wraps
from typing import Any

from spec_convert.serving.updaters import (
    Config,
    Updater,
    drops_biases,
    mistakes_windows,
    show_windows,
    update_eagle,
    update_eagle_mlp,
)
from spec_convert.serving.versions import installed, missing_interface, untested_warning

Reader = Callable[..., None]  # vLLM calls it with config_dict and pre_trained_config

MODELS = {
    "UnifiedEagleForCausalLM": "spec_convert.serving.eagle_model:UnifiedEagleForCausalLM",
    "UnifiedEagle3Qwen3ForCausalLM": "spec_convert.serving.qwen3_model:UnifiedEagle3Qwen3ForCausalLM",
    "UnifiedMlpForCausalLM": "spec_convert.serving.mlp_model:UnifiedMlpForCausalLM",
}
METHODS = {"eagle_mlp": "eagle"}  # vLLM's own name for what proposes with drafts of this type
OURS = "__spec_convert__"

logger = logging.getLogger("vllm.spec_convert")  # below `vllm`: shown as vLLM shows its own lines


def register() -> None:
    """Teach this vLLM the unified drafts that it does not know. Called any number of times; never raises."""
    try:
        _register()
    except Exception as error:  # vLLM calls plugins unguarded: what escapes here stops every model
        _complain(missing_interface(str(error) or type(error).__name__))


def _register() -> None:
    from vllm import ModelRegistry
    from vllm.transformers_utils.configs.speculators import SpeculatorsConfig, algos

    for name, place in MODELS.items():
        ModelRegistry.register_model(name, place)
    enter: Any = algos.register_speculator
    for kind, reader in READERS.items():
        known = algos.SUPPORTED_SPECULATORS_TYPES.get(kind)
        if not hasattr(known, OURS):
            enter(kind)(reader(known))
    if not hasattr(SpeculatorsConfig.extract_vllm_speculative_config, OURS):
        _translate_methods(SpeculatorsConfig)


def _ours(updater: Updater) -> Callable[[Reader | None], Reader]:
    """Our updater for our directories. A vLLM that has come to know the type reads all others itself, as before."""

    def around(known: Reader | None) -> Reader:
        def read(config_dict: Config, pre_trained_config: Config) -> None:
            if known and not updater.reads(config_dict):
                known(config_dict=config_dict, pre_trained_config=pre_trained_config)
                return
            _mention_version()
            updater.update(config_dict, pre_trained_config)

        return _marked(read)

    return around


def _corrected(kind: str, correct: Callable[[Config, Config], bool]) -> Callable[[Reader | None], Reader]:
    """vLLM's own reading of this type, and what ``correct`` changes in it, if it does."""

    def around(known: Reader | None) -> Reader:
        def read(config_dict: Config, pre_trained_config: Config) -> None:
            if known is None:
                raise ValueError(f"vLLM {installed()} knows no drafts of type `{kind}`")
            known(config_dict=config_dict, pre_trained_config=pre_trained_config)
            if correct(config_dict, pre_trained_config):
                _mention_version()

        return _marked(read)

    return around


def _biases(config: Config, model_config: Config) -> bool:
    """Another model for biases that vLLM's own one has no place for."""
    if dropped := drops_biases(model_config):
        model_config["architectures"] = ["UnifiedEagle3Qwen3ForCausalLM"]
    return dropped


def _windows(config: Config, model_config: Config) -> bool:
    if mistaken := mistakes_windows(config):
        show_windows(config, model_config)
    return mistaken


def _marked(read: Reader) -> Reader:
    setattr(read, OURS, True)
    return read


# What stands in for vLLM's reader of a type, made from the one that it has.
READERS: Mapping[str, Callable[[Reader | None], Reader]] = {
    "eagle": _ours(update_eagle),
    "eagle_mlp": _ours(update_eagle_mlp),
    "eagle3": _corrected("eagle3", _biases),
    "peagle": _corrected("peagle", _biases),
    "dflash": _corrected("dflash", _windows),
    "dspark": _corrected("dspark", _windows),
}


def _translate_methods(config_class: Any) -> None:
    """vLLM takes the type's name for the method, and wants the decoder layers that an MLP has not.

    There is no hook for either, so its class method is wrapped; other types pass through untouched.
    """
    inner = config_class.extract_vllm_speculative_config.__func__

    @wraps(inner)
    def extract(cls: type, config_dict: dict[str, Any]) -> dict[str, Any]:
        method = METHODS.get(str(config_dict.get("speculators_model_type")))
        if method is None:
            return dict(inner(cls, config_dict=config_dict))
        return {**inner(cls, config_dict={"transformer_layer_config": {}, **config_dict}), "method": method}

    setattr(extract, OURS, True)
    config_class.extract_vllm_speculative_config = classmethod(extract)


@cache
def _mention_version() -> None:
    if warning := untested_warning():
        logger.warning(warning)


@cache
def _complain(message: str) -> None:
    logger.error(message)
