"""Draft configs: the ready ones, files, and the config.json of other trainers. What is not understood is refused."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from spec_convert.errors import SpecConvertError, UsageError
from spec_convert.training.drafts.building import KINDS, kind_of
from spec_convert.training.drafts.reading import read_choices, read_shape, ready_configs
from spec_convert.training.drafts.shape import DraftShape
from spec_convert.verifier import open_verifier

SPECFORGE = {
    "architectures": ["LlamaForCausalLMEagle3"], "attention_bias": False, "attention_dropout": 0.0, "head_dim": 128,
    "bos_token_id": 151643, "eos_token_id": 151645, "fc_norm": True, "hidden_act": "silu", "hidden_size": 2048,
    "initializer_range": 0.02, "intermediate_size": 12288, "max_position_embeddings": 2048, "max_window_layers": 48,
    "model_type": "llama", "norm_output": True, "num_attention_heads": 32, "num_hidden_layers": 1,
    "num_key_value_heads": 4, "rms_norm_eps": 1e-06, "rope_scaling": None, "rope_theta": 1000000.0,
    "sliding_window": None, "tie_word_embeddings": False, "torch_dtype": "bfloat16", "transformers_version": "4.53.2",
    "use_cache": True, "use_sliding_window": False, "vocab_size": 151936, "draft_vocab_size": 32000,
    "eagle_config": {"eagle_aux_hidden_state_layer_ids": [1, 23, 44], "use_aux_hidden_state": True},
}  # fmt: skip


def test_the_ready_ones() -> None:
    assert list(ready_configs()) == ["llama-3-8b-shared-head", "llama-3.1-8b", "qwen3-1.7b", "smollm2-135m"]


@pytest.mark.parametrize("name", list(ready_configs()))
def test_a_ready_config_names_its_kind_and_its_verifier_and_says_nothing_idle(name: str) -> None:
    shape = read_shape(name)
    assert shape.draft in KINDS
    assert shape.chosen.keys() <= kind_of(shape.draft).heeds
    assert None not in shape.verifier.model_dump().values()
    ids, layers = shape.target_layers, shape.verifier.num_hidden_layers
    assert layers is not None
    assert ids == (2, layers // 2, layers - 3)


def test_the_shared_head_has_the_whole_vocabulary_and_the_sizes_of_its_authors() -> None:
    shape = read_shape("llama-3-8b-shared-head")
    assert shape.intermediate_size == 14336
    assert (shape.verifier.vocab_size, shape.draft_vocab_size) == (128256, None)


@pytest.mark.parametrize("name", list(ready_configs()))
def test_a_ready_config_is_refused_for_another_verifier(name: str, verifier: Path) -> None:
    shape = read_shape(name)
    assert shape.draft is not None
    with pytest.raises(UsageError, match=r"the draft config was made for .*hidden_size .*, not 64"):
        shape.require_for(shape.draft, kind_of(shape.draft).heeds, open_verifier(verifier))


@pytest.mark.parametrize("key", ["hidden_size", "num_hidden_layers", "vocab_size"])
def test_any_fact_of_another_verifier_is_refused(key: str, verifier: Path) -> None:
    here = open_verifier(verifier)
    facts = {name: getattr(here, name) for name in ("hidden_size", "num_hidden_layers", "vocab_size")}
    heeded = kind_of("eagle3").heeds
    DraftShape.model_validate({"verifier": facts}).require_for("eagle3", heeded, here)
    with pytest.raises(UsageError, match=key):
        DraftShape.model_validate({"verifier": facts | {key: facts[key] + 1}}).require_for("eagle3", heeded, here)


def test_a_config_of_another_kind_is_refused(verifier: Path) -> None:
    with pytest.raises(UsageError, match="is for a draft of kind eagle3, not eagle"):
        DraftShape(draft="eagle3").require_for("eagle", kind_of("eagle").heeds, open_verifier(verifier))


@pytest.mark.parametrize(
    ("kind", "choice"),
    [("eagle", {"fc_norm": True}), ("eagle-mlp", {"head_dim": 32}), ("eagle3", {"mlp_layers": 2})],
)
def test_a_choice_that_means_nothing_for_the_kind_is_refused(kind: str, choice: dict[str, Any], verifier: Path) -> None:
    with pytest.raises(UsageError, match=f"{next(iter(choice))} mean nothing for a draft of kind {kind}"):
        DraftShape(**choice).require_for(kind, kind_of(kind).heeds, open_verifier(verifier))


def test_a_file_of_another_trainer_is_read_as_that_trainer_means_it(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text(json.dumps(SPECFORGE))
    shape = read_shape(file)
    assert shape.draft == "eagle3"
    assert shape.verifier.vocab_size == 151936
    assert shape.target_layers == (2, 24, 45)  # it counts outputs
    assert shape.norm_output is None  # it means the norm before the head, which is always there
    assert (shape.model_type, shape.fc_norm, shape.rope_theta, shape.rope_scaling) == ("llama", True, 1e6, None)


def test_toml_and_json_say_the_same(tmp_path: Path) -> None:
    text = 'draft = "eagle3"\ntarget_layers = [1, 4]\nrms_norm_eps = 1e-5\n[verifier]\nhidden_size = 64\n'
    (tmp_path / "a.toml").write_text(text)
    (tmp_path / "a.json").write_text(json.dumps(tomllib.loads(text)))
    assert read_shape(tmp_path / "a.toml") == read_shape(str(tmp_path / "a.json"))
    assert read_shape(tmp_path / "a.toml").target_layers == (1, 4)


def test_the_rotation_may_be_written_in_new_keys() -> None:
    scaling = {"rope_type": "linear", "factor": 4.0}
    shape = read_choices({"rope_parameters": scaling | {"rope_theta": 5e5}}, "f")
    assert (shape.rope_theta, shape.rope_scaling) == (5e5, scaling)


def test_boundary_ids_of_servers_are_taken_as_they_are() -> None:
    given = {"eagle_aux_hidden_state_layer_ids": [2, 16, 29], "num_aux_hidden_states": 3}
    assert read_choices(given, "f").target_layers == (2, 16, 29)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"hiden_size": 64}, "there is no choice `hiden_size`; did you mean `hidden_size`"),
        ({"n_experts": 4}, "there is no choice `n_experts`"),
        ({"hidden_size": "64"}, "hidden_size is '64'"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu'.*servers have no other"),
        ({"attention_bias": True}, "attention_bias is True"),
        ({"tie_word_embeddings": True}, "tie_word_embeddings is True"),
        ({"target_layers": [3, 2]}, "not layers of the verifier in rising order"),
        ({"target_layers": []}, "not layers of the verifier in rising order"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
        ({"rope_theta": 1e4, "rope_parameters": {"rope_theta": 2e4, "rope_type": "default"}}, "several bases"),
        ({"eagle_config": {"eagle_aux_hidden_state_layer_ids": [1, 3]}}, "inputs or by their outputs.*1,3.*or.*2,4"),
        ({"eagle_aux_hidden_state_layer_ids": [1], "architectures": ["LlamaForCausalLMEagle3"]}, "inputs or by their"),
        ({"eagle_aux_hidden_state_layer_ids": [1, 2], "num_aux_hidden_states": 3}, "num_aux_hidden_states is 3"),
        ({"eagle_config": {"use_aux_hidden_state": False}}, "use_aux_hidden_state is off"),
        ({"norm_output": False, "architectures": ["LlamaForCausalLMEagle3"]}, "no norm before the head"),
        ({"eagle_aux_hidden_state_layer_ids": [1], "target_layers": [1]}, "say the same thing"),
        ({"vocab_size": 7, "verifier": {"vocab_size": 8}}, "in `verifier` and beside it"),
        ({"verifier": "org/name"}, "verifier is 'org/name'"),
        ({"speculators_model_type": "eagle3"}, "--from-pretrained"),
    ],
)
def test_what_cannot_be_meant_is_refused(given: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError) as refused:
        read_choices(given, "f")
    assert_says(refused.value, words)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("llama-3.1-8", None, "there is no draft config.*llama-3.1-8b"),
        ("gone.toml", None, "there is no draft config"),
        ("a.yaml", "x: 1", "there is no draft config.*toml.*json"),
        ("a.toml", "x = ", "is no TOML"),
        ("a.json", "{", "a.json"),
        ("", None, "is a folder.*--from-pretrained"),
    ],
)
def test_what_is_no_draft_config_is_refused(name: str, content: str | None, words: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(SpecConvertError) as refused:
        read_shape(tmp_path / name)
    assert_says(refused.value, words)


def test_flags_take_the_place_of_what_a_file_says() -> None:
    shape = DraftShape(num_hidden_layers=1, target_layers=(1, 2), head_dim=32)
    assert shape.updated(num_hidden_layers=2, target_layers=None).chosen == {
        "num_hidden_layers": 2, "target_layers": (1, 2), "head_dim": 32,
    }  # fmt: skip
    with pytest.raises(UsageError, match="num_hidden_layers is 0"):
        shape.updated(num_hidden_layers=0)


def assert_says(error: SpecConvertError, words: str) -> None:
    import re

    assert re.search(words, f"{error.message}; {error.hint}"), f"{error.message}; {error.hint}"
