"""With spec_convert installed a stock vLLM knows the unified drafts, and everything that it knew before."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any

import pytest
import torch

from spec_convert.serving import plugin, versions
from spec_convert.serving.updaters import mistakes_windows

FULL, SLIDING = "full_attention", "sliding_attention"
pytestmark = [
    pytest.mark.vllm,
    pytest.mark.skipif(find_spec("vllm") is None, reason="vllm is not installed: pip install 'spec-convert[vllm]'"),
]


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """vLLM's table of types as it is without any plugin, and this package as in a new process."""
    from vllm.transformers_utils.configs.speculators import SpeculatorsConfig, algos, base

    known = algos.SUPPORTED_SPECULATORS_TYPES
    stock = {name: reader for name, reader in known.items() if not hasattr(reader, plugin.OURS)}
    for module in (algos, base):
        monkeypatch.setattr(module, "SUPPORTED_SPECULATORS_TYPES", stock)
    extract = SpeculatorsConfig.extract_vllm_speculative_config.__func__
    stock_extract = classmethod(getattr(extract, "__wrapped__", extract))
    monkeypatch.setattr(SpeculatorsConfig, "extract_vllm_speculative_config", stock_extract)
    forget()
    yield stock
    forget()


def forget() -> None:
    for said_once in (plugin._mention_version, plugin._complain):
        said_once.cache_clear()


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> pytest.LogCaptureFixture:
    monkeypatch.setattr(plugin.logger, "propagate", True)
    monkeypatch.setattr(logging.getLogger("vllm"), "propagate", True)
    caplog.set_level(logging.INFO, "vllm.spec_convert")
    return caplog


@pytest.fixture
def biased(eagle: Callable[..., Any]) -> dict[str, Any]:
    """The unified config of an EAGLE draft with a fusion bias."""
    draft = eagle()
    draft.tensors["fc.bias"] = torch.ones(16)
    config: dict[str, Any] = draft.convert().config
    return config


def pairing(config: dict[str, Any]) -> dict[str, Any]:
    """What vLLM makes of a directory before it loads anything: the speculative config."""
    from vllm.transformers_utils.configs.speculators import SpeculatorsConfig

    return dict(SpeculatorsConfig.extract_vllm_speculative_config(config))


def model_config(config: dict[str, Any]) -> dict[str, Any]:
    """The model config that vLLM makes of the draft."""
    from vllm.transformers_utils.configs.speculators import SpeculatorsConfig

    return dict(SpeculatorsConfig.extract_transformers_pre_trained_config(config))


def test_a_stock_vllm_rejects_the_type_and_ours_does_not(fresh: Any, biased: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="Expected one of"):
        model_config(biased)
    plugin.register()
    assert model_config(biased)["architectures"] == ["UnifiedEagleForCausalLM"]
    assert pairing(biased) == {"method": "eagle", "num_speculative_tokens": 3}


def test_an_mlp_draft_is_proposed_with_as_an_eagle_draft(fresh: Any, mlp: Callable[..., Any]) -> None:
    plugin.register()
    config = mlp().convert(speculative_tokens=4).config
    assert pairing(config) == {"method": "eagle", "num_speculative_tokens": 4}
    assert model_config(config)["architectures"] == ["UnifiedMlpForCausalLM"]


def test_registering_again_changes_nothing(fresh: Any) -> None:
    from vllm.transformers_utils.configs.speculators import SpeculatorsConfig

    plugin.register()
    before = dict(fresh), SpeculatorsConfig.__dict__["extract_vllm_speculative_config"]
    plugin.register()
    assert (dict(fresh), SpeculatorsConfig.__dict__["extract_vllm_speculative_config"]) == before


@pytest.mark.parametrize("kind", ["dflash", "dspark", "eagle3", "peagle"])
def test_types_that_vllm_knows_are_left_to_vllm(fresh: Any, kind: str, request: pytest.FixtureRequest) -> None:
    draft = request.getfixturevalue(kind)().convert().config
    others = {name: reader for name, reader in fresh.items() if name not in plugin.READERS}
    expected = pairing(draft), model_config(copy.deepcopy(draft))
    plugin.register()
    assert {name: fresh[name] for name in others} == others
    assert (pairing(draft), model_config(draft)) == expected


@pytest.mark.parametrize(("kind", "stock_model"), [("eagle3", "Eagle3Qwen3"), ("peagle", "PeagleQwen3")])
@pytest.mark.parametrize("bias", ["attention_bias", "mlp_bias"])
def test_biases_that_vllm_would_drop_get_a_model_of_ours(
    fresh: Any, kind: str, stock_model: str, bias: str, request: pytest.FixtureRequest
) -> None:
    draft = request.getfixturevalue(kind)().convert().config
    draft["transformer_layer_config"] |= {"model_type": "qwen3", bias: True}
    stock = copy.deepcopy(draft)
    assert model_config(stock)["architectures"] == [f"{stock_model}ForCausalLM"]
    plugin.register()
    assert model_config(draft)["architectures"] == ["UnifiedEagle3Qwen3ForCausalLM"]


@pytest.mark.parametrize("types", [[FULL, FULL], [SLIDING, FULL], [SLIDING, SLIDING]], ids=" ".join)
@pytest.mark.parametrize("non_causal", [True, False])
@pytest.mark.parametrize("kind", ["dflash", "dspark"])
def test_windows_are_read_as_they_are_meant(
    fresh: Any, kind: str, types: list[str], non_causal: bool, request: pytest.FixtureRequest
) -> None:
    draft = request.getfixturevalue(kind)(layers=2, layer_types=types, sliding_window=5).convert().config
    draft["sliding_window_non_causal"] = non_causal
    meant = [each == SLIDING and not non_causal for each in types]
    mistaken = mistakes_windows(draft)
    assert (causality(copy.deepcopy(draft)) != meant) == mistaken
    plugin.register()
    assert causality(draft) == meant


def causality(config: dict[str, Any]) -> list[bool]:
    """Layer by layer, whether rows see only those before them, as vLLM's own model decides it."""
    from transformers import PreTrainedConfig
    from vllm.model_executor.models.qwen3_dflash import _dflash_layer_causal

    made = model_config(config)
    told = PreTrainedConfig()
    for key in ("is_causal", "dflash_config", "layer_types"):
        setattr(told, key, made.get(key))
    return [_dflash_layer_causal(told, number) for number in range(made["num_hidden_layers"])]


def test_a_later_vllm_that_knows_the_type_reads_what_is_not_ours(
    fresh: Any, biased: dict[str, Any], old_library: Callable[..., Any]
) -> None:
    theirs = fresh["eagle"] = lambda config_dict, pre_trained_config: pre_trained_config.update(
        architectures=["Theirs"]
    )
    plugin.register()
    assert fresh["eagle"] is not theirs
    assert model_config(old_library().config)["architectures"] == ["Theirs"]
    assert model_config(biased)["architectures"] == ["UnifiedEagleForCausalLM"]


@pytest.mark.parametrize("name", list(plugin.MODELS))
def test_vllm_finds_the_model_classes(fresh: Any, name: str) -> None:
    from vllm import ModelRegistry

    plugin.register()
    assert ModelRegistry.models[name].load_model_cls().__name__ == name


def test_an_untested_version_is_mentioned_once_when_a_draft_of_ours_is_loaded(
    fresh: Any, biased: dict[str, Any], log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(versions, "installed", lambda: "0.99.1")
    plugin.register()
    assert log.records == []
    model_config(biased)
    model_config(biased)
    (record,) = log.records
    assert record.levelname == "WARNING"
    assert "vLLM 0.99.1 is installed; spec-convert was tested with 0.32" in record.message


def test_the_tested_version_is_not_worth_a_word(
    fresh: Any, biased: dict[str, Any], log: pytest.LogCaptureFixture
) -> None:
    plugin.register()
    model_config(biased)
    assert log.records == []


@pytest.mark.parametrize("name", ["register_speculator", "SUPPORTED_SPECULATORS_TYPES"])
def test_a_missing_interface_is_named_once_and_stops_nothing(
    fresh: Any, log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    from vllm.transformers_utils.configs.speculators import algos

    monkeypatch.delattr(algos, name)
    plugin.register()
    plugin.register()
    (record,) = log.records
    assert record.levelname == "ERROR"
    for said in (name, "Tested with vLLM 0.32", "install that, or a newer spec-convert"):
        assert said in record.message


def test_nothing_that_another_vllm_raises_stops_it(
    fresh: Any, log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vllm.transformers_utils.configs.speculators import algos

    monkeypatch.setattr(algos, "register_speculator", lambda: None)  # it takes another number of arguments: TypeError
    plugin.register()
    (record,) = log.records
    assert record.levelname == "ERROR"
    assert "takes 0 positional arguments but 1 was given. Tested with vLLM 0.32" in record.message


def test_a_model_that_vllm_no_longer_has_is_named_with_what_to_do() -> None:
    with pytest.raises(ImportError, match=r"lacks an interface .* 'Gone'.*Tested with vLLM 0\.32"), versions.needed():
        from vllm.model_executor.models.llama_eagle import Gone  # noqa: F401
