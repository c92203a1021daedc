"""Unified directories as servers read them: silent on every conversion, and truthful about those of other tools."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from spec_convert import convert, validate
from spec_convert.cli import run
from spec_convert.findings import Level
from spec_convert.rules import served

from ..e2e import tiny_pairs
from ..e2e.conftest import real_drafts  # noqa: F401  drafts that were trained
from ..tiny import Tiny, random, write
from .as_lies import LAYER, findings, unified

Make = Callable[..., Any]
KEY = "eagle_aux_hidden_state_layer_ids"
OURS = {rule.code for rule in served.RULES}
FIXTURES = Path(__file__).parents[1] / "goldens" / "fixtures"
GOLDEN = sorted(case.name for case in FIXTURES.iterdir() if case.is_dir())
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 512}


def ours(source: Path, verifier: Path | None = None) -> dict[str, str]:
    """What the rules of this area say of a directory."""
    (checked,) = validate(source, verifier=verifier).checked
    return {finding.rule: finding.message for finding in checked.findings if finding.rule in OURS}


@pytest.fixture
def plain(eagle3: Make) -> Callable[..., Tiny]:
    return lambda **changes: unified(eagle3(), **changes)


@pytest.mark.parametrize("name", GOLDEN)
def test_a_published_checkpoint_and_its_conversion_are_clean(name: str, tmp_path: Path) -> None:
    source, verifier = FIXTURES / name / "checkpoint", FIXTURES / name / "verifier"
    made = convert(source, tmp_path / "made", verifier=verifier).output
    assert [ours(folder, base) for folder in (source, made) for base in (None, verifier)] == [{}] * 4


@pytest.mark.parametrize("case", tiny_pairs.CASES.values(), ids=tiny_pairs.CASES)
def test_a_conversion_of_any_dialect_is_clean(case: tiny_pairs.Case, tmp_path: Path) -> None:
    verifier = write(tmp_path / "verifier", tiny_pairs.SIZES.llama(num_hidden_layers=8), {})
    source, made = case.write(tmp_path / "draft"), tmp_path / "made"
    assert run(["-q", "convert", str(source), str(made), "--verifier", str(verifier), *case.flags]) == 0
    assert [ours(made), ours(made, verifier)] == [{}, {}]


@pytest.mark.parametrize("name", ["eagle1_smol135", "eagle3_smol135"])
def test_a_real_draft_and_its_conversion_are_clean(name: str, real_drafts: Path, tmp_path: Path) -> None:  # noqa: F811
    """Only the config of its verifier is needed, so that SmolLM2 itself can stay where it is."""
    source = real_drafts / name
    sizes = {"hidden_size": 576, "vocab_size": 49152, "num_hidden_layers": 30, "max_position_embeddings": 8192}
    verifier = write(tmp_path / "SmolLM2", sizes, {})
    made = convert(source, tmp_path / "made", verifier=verifier).output
    assert [ours(folder, base) for folder in (source, made) for base in (None, verifier)] == [{}] * 4


def test_the_same_verifier_under_another_name_changes_nothing(plain: Make, verifier: Path) -> None:
    draft = plain()
    draft.config["speculators_config"]["verifier"] = {"name_or_path": "somebody/Verifier", "architectures": []}
    assert findings(draft, verifier=verifier) == {}
    assert findings(draft) == {}


def test_what_servers_do_not_read_may_say_anything(plain: Make, verifier: Path) -> None:
    dump = {
        "attention_dropout": 0.0, "initializer_range": 0.02, "pretraining_tp": 1, "use_cache": True, "bias": False,
        "bos_token_id": 1, "eos_token_id": [2, 3], "_name_or_path": "/somewhere", "layer_types": ["full_attention"],
        "sliding_window": None, "tie_word_embeddings": True,
    }  # fmt: skip
    draft = plain(
        layer=dump, torch_dtype=..., dtype="float32", speculators_version="0.3.0", architectures=["Eagle3DraftModel"],
        embed_requires_grad=True, auto_map={"": "config.Eagle3SpeculatorConfig"}, target_hidden_size=16,
        model_type="speculators",
    )  # fmt: skip
    assert findings(draft, verifier=verifier) == {}


def test_transformers_5_spells_the_rotary_embedding_otherwise_and_vllm_reads_it(plain: Make) -> None:
    modern = {"rope_theta": ..., "rope_scaling": ..., "rope_parameters": {"rope_type": "default", "rope_theta": 5e5}}
    assert findings(plain(layer=modern)) == {}


RELEASES = {
    "0.3": (
        {"norm_before_fc": ..., "fc_norm": ..., "norm_output": ..., "embed_requires_grad": ..., KEY: None},
        {"num_aux_hidden_states": ..., "tie_word_embeddings": ...},
        {"not-written": "leaves out norm_before_fc, fc_norm, norm_output, num_aux_hidden_states",
         "aux-layer-ids-not-written": "2, {half}"},
    ),
    "0.9": (
        {"torch_dtype": ..., "dtype": "bfloat16"},
        {"num_aux_hidden_states": ..., "rope_theta": ..., "rope_scaling": ..., "head_dim": 6,
         "rope_parameters": {"rope_type": "default", "rope_theta": 500000.0}},
        {"not-written": "leaves out num_aux_hidden_states"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("release", RELEASES)
def test_what_a_release_leaves_out_is_told_in_few_lines(release: str, plain: Make, verifier: Path) -> None:
    changes, layer, expected = RELEASES[release]
    draft = plain(layer=layer, **changes)
    for base, half in ((None, "N//2, N-3"), (verifier, "4, 5")):
        seen = {
            rule: finding.message for rule, finding in findings(draft, verifier=base).items() if rule != "dtype-differs"
        }
        assert seen.keys() == expected.keys()
        assert all(words.format(half=half) in seen[rule] for rule, words in expected.items())


def test_four_states_without_a_word_are_found_with_the_verifier_or_without(eagle3: Make, verifier: Path) -> None:
    draft = unified(eagle3(states=4, **{KEY: [1, 3, 5, 7]}), layer={"num_aux_hidden_states": ...}, **{KEY: ...})
    alone, with_verifier = findings(draft), findings(draft, verifier=verifier)
    assert alone.keys() == {"aux-count", "aux-layer-ids-not-written"}
    assert with_verifier.keys() == {"aux-count", "aux-layer-ids-not-written", "aux-layer-ids"}
    assert "vLLM takes 3; 4 is meant" in alone["aux-count"].message


def test_the_rest_is_judged_although_the_residual_is_unknown(plain: Make) -> None:
    seen = findings(plain(layer={"num_hidden_layers": 3}, norm_before_residual=...))
    assert seen.keys() == {"norm-before-residual-unknown", "read-otherwise"}


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        ({"num_hidden_layers": 3}, "says `num_hidden_layers` is 3; 1 is meant"),
        ({"head_dim": 4}, "says `head_dim` is 4; 6 is meant"),
        ({"model_type": "qwen2"}, "says `model_type` is 'qwen2'"),
        ({"rope_theta": 500000.0, "rope_parameters": YARN, "rope_scaling": None}, "which scales nothing"),
        ({"rope_theta": ..., "rope_parameters": YARN | {"rope_theta": 5e5}, "rope_scaling": YARN},
         "`rope_theta` stands where vLLM takes 10000.0; 500000 is meant"),
        ({"rope_scaling": {"rope_type": "linear", "factor": 4}}, "a whole number"),
    ],
)  # fmt: skip
def test_what_servers_read_otherwise_is_an_error(layer: dict[str, Any], words: str, plain: Make) -> None:
    last = {key: layer[key] for key in layer if key.startswith("rope")}
    draft = plain(layer={**dict.fromkeys(last, ...), **{key: layer[key] for key in layer if key not in last}})
    draft.config[LAYER] |= {key: value for key, value in last.items() if value is not ...}
    seen = [f for f in _all(draft) if f.rule != "not-written"]
    assert {finding.rule for finding in seen} == {"read-otherwise"}
    assert any(words in finding.message for finding in seen), [finding.message for finding in seen]


def _all(draft: Tiny) -> Iterable[Any]:
    (checked,) = validate(draft.write()).checked
    return checked.findings


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        ({"head_dim": ...}, "vLLM takes 4; 6 is meant"),
        ({"num_hidden_layers": ...}, "cannot do without"),
    ],
)
def test_what_servers_guess_wrongly_is_an_error(layer: dict[str, Any], words: str, plain: Make) -> None:
    seen = findings(plain(layer=layer))
    assert seen.keys() == {"left-to-servers"}
    assert words in seen["left-to-servers"].message


def test_null_is_no_number_of_heads_to_vllm(eagle3: Make) -> None:
    draft = eagle3(num_key_value_heads=4)
    draft.tensors |= random({f"midlayer.self_attn.{part}_proj.weight": (24, 32) for part in "kv"})
    draft = unified(draft, layer={"num_key_value_heads": ...})
    assert findings(draft)["not-written"].message == "leaves out num_key_value_heads"
    draft.config[LAYER]["num_key_value_heads"] = None
    assert "cannot do without" in findings(draft)["left-to-servers"].message


def test_layer_ids_at_a_place_where_vllm_does_not_look_are_left_to_it(plain: Make, verifier: Path) -> None:
    draft = plain(**{KEY: ..., "eagle_config": {KEY: [1, 3, 7]}})
    assert "vLLM takes 2, 4, 5; [1, 3, 7] is meant" in findings(draft, verifier=verifier)["left-to-servers"].message
    assert findings(draft).keys() == {"aux-layer-ids-not-written"}
    draft.set(eagle_config={KEY: [2, 4, 5]})
    assert findings(draft, verifier=verifier).keys() == {"aux-layer-ids-not-written"}


@pytest.mark.parametrize("said", [None, {}, *({"proposal_methods": methods} for methods in ([], [{}], 3))])
def test_an_envelope_that_vllm_refuses_is_an_error(said: object, plain: Make) -> None:
    assert "left-to-servers" in findings(plain(speculators_config=said))


@pytest.mark.parametrize("reference", [None, "name", {}, {"name_or_path": ""}, {"name_or_path": None}])
def test_a_directory_that_does_not_name_its_verifier_cannot_be_served_alone(reference: object, plain: Make) -> None:
    draft = plain()
    draft.config["speculators_config"]["verifier"] = reference
    assert findings(draft).keys() == {"verifier-unnamed"}


def test_dynamic_scaling_is_told_of_positions_by_its_own_rule(eagle3: Make, make_verifier: Make) -> None:
    draft = unified(eagle3(rope_scaling={"rope_type": "dynamic", "factor": 2.0}))
    longer = make_verifier("longer", max_position_embeddings=4096)
    assert findings(draft, verifier=longer).keys() == {"positions-end-early"}


def test_a_vocabulary_without_marks_is_served_and_half_known_to_the_library(plain: Make) -> None:
    draft = plain()
    del draft.tensors["t2d"]
    assert findings(draft).keys() == {"t2d-missing"}


def test_narrow_maps_are_read_as_they_are(plain: Make) -> None:
    draft = plain()
    draft.tensors |= {"d2t": draft.tensors["d2t"].int(), "t2d": draft.tensors["t2d"].to(torch.uint8)}
    assert findings(draft) == {}


def test_what_servers_leave_out_is_a_note(plain: Make) -> None:
    draft = plain()
    draft.tensors["layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(3)
    assert findings(draft)["unread-tensor"].level is Level.NOTE


def test_the_authors_spelling_is_known_to_vllm_alone(plain: Make) -> None:
    assert findings(plain().rename("layers.0.", "midlayer.")).keys() == {"vllm-spelling"}


def test_names_that_no_server_knows_are_an_error(plain: Make) -> None:
    draft = plain()
    draft.tensors = {f"module.{name}": tensor for name, tensor in draft.tensors.items()}
    seen = findings(draft)
    assert seen.keys() == {"tensor-read-otherwise"}
    assert "d2t (here module.d2t)" in seen["tensor-read-otherwise"].message


def test_weights_beside_the_weights_are_an_error_unless_an_index_leaves_them_out(plain: Make) -> None:
    folder = plain().write()
    save_file({"x": torch.ones(1)}, folder / "adapter.safetensors")
    assert findings(folder).keys() == {"weights-beside"}
    assert findings(folder / "model.safetensors") == {}
    names = ["d2t", "fc.weight"]
    save_file({name: torch.ones(1) for name in names}, folder / "old.safetensors")
    assert "adapter.safetensors, old.safetensors" in findings(folder)["weights-beside"].message


@pytest.mark.parametrize("kind", ["native", "unified"])
def test_a_draft_of_several_dtypes_is_noted_at_the_rarest(kind: str, eagle3: Make, verifier: Path) -> None:
    draft = eagle3() if kind == "native" else unified(eagle3())
    draft.tensors["norm.weight"] = draft.tensors["norm.weight"].half()
    seen = findings(draft, verifier=verifier)["mixed-dtypes"]
    assert (seen.level, seen.where) == (Level.NOTE, "norm.weight")
    assert "float16: norm.weight" in seen.message


def test_a_cast_leaves_no_mixture(eagle3: Make) -> None:
    draft = eagle3()
    draft.tensors["norm.weight"] = draft.tensors["norm.weight"].half()
    assert "mixed-dtypes" not in draft.convert(dtype="bfloat16").findings
    assert "mixed-dtypes" in draft.convert().findings


@pytest.fixture
def eagle1(eagle: Make) -> Callable[..., Tiny]:
    return lambda **changes: unified(eagle(), **changes)


def test_eagle1_without_the_keys_for_stock_vllm_needs_the_plugin(eagle1: Make) -> None:
    assert findings(eagle1(model_type=..., model=...)).keys() == {"needs-the-vllm-plugin"}


def test_what_stock_vllm_reads_of_eagle1_is_compared_too(eagle1: Make) -> None:
    draft = eagle1()
    draft.config["model"] |= {"num_hidden_layers": 2}
    assert findings(draft)["read-otherwise"].where == "config.json: model"
    draft.config["model"] = {key: value for key, value in draft.config["model"].items() if key != "num_hidden_layers"}
    assert "vLLM takes 32; 1 is meant" in findings(draft)["left-to-servers"].message


@pytest.mark.parametrize(
    "said",
    [None, [], {}, {"num_attention_heads": 4}, {"hidden_size": "wide", "num_attention_heads": 0},
     {"rope_theta": "x", "rope_scaling": {"rope_type": "linear"}, "rope_parameters": 3}],
    ids=repr,
)  # fmt: skip
def test_whatever_the_config_for_stock_vllm_holds_is_judged(said: object, eagle1: Make) -> None:
    rules = {finding.rule for finding in _all(eagle1(model=said))}
    assert "left-to-servers" in rules
    assert rules <= {"left-to-servers", "read-otherwise", "not-written"}


@pytest.mark.parametrize("part", [LAYER, "model"])
def test_eagles_bias_poisons_eagle1_wherever_vllm_reads_it(part: str, eagle1: Make) -> None:
    draft = eagle1()
    draft.config[part]["bias"] = True
    assert findings(draft)["bias-read-by-attention"].where == f"config.json: {part}"


def test_a_model_type_by_which_stock_vllm_would_drop_the_fusion_bias_is_an_error(eagle: Make) -> None:
    draft = eagle()
    draft.tensors |= random({"fc.bias": (16,)})
    draft = unified(draft)
    assert findings(draft).keys() == {"needs-the-vllm-plugin"}
    assert "without its fusion bias" in findings(draft.set(model_type="eagle"))["top-level-model-type"].message


def test_an_mlp_that_leaves_out_what_the_plugin_asks_for_is_an_error(mlp: Make) -> None:
    draft = unified(mlp())
    assert findings(draft).keys() == {"needs-the-vllm-plugin"}
    assert "cannot do without" in findings(draft.set(layer_norm_eps=...))["left-to-servers"].message


@pytest.fixture
def converted(eagle3: Make) -> Path:
    return eagle3().convert().output


def rewrite(folder: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    file = folder / "conversion.json"
    told = json.loads(file.read_text())
    change(told)
    file.write_text(json.dumps(told))
    return folder


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"embed_tokens.weight": torch.ones(32, 16)}, "also holds embed_tokens.weight"),
        ({"norm.weight": torch.ones(16, dtype=torch.float16)}, "norm.weight is F16 [16] and was F32 [16]"),
    ],
)
def test_a_file_that_was_changed_after_its_conversion_is_found(
    changes: dict[str, torch.Tensor], words: str, eagle3: Make
) -> None:
    made = eagle3().convert()
    save_file(made.tensors | changes, made.output / "model.safetensors")
    assert words in ours(made.output)["not-as-converted"]


def test_a_tensor_that_was_dropped_after_the_conversion_is_found_although_it_is_optional(eagle3: Make) -> None:
    draft = eagle3()
    draft.tensors |= random({"embed_tokens.weight": (32, 16)})
    made = draft.convert()
    kept = {name: tensor for name, tensor in made.tensors.items() if name != "embed_tokens.weight"}
    save_file(kept, made.output / "model.safetensors")
    assert ours(made.output) == {"not-as-converted": "the file lacks embed_tokens.weight"}


@pytest.mark.parametrize(
    "moved", [None, {}, [3], [{"target": "x"}], [{"target": 1, "dtype": "F32", "shape": []}]], ids=repr
)
def test_a_conversion_that_lists_no_tensors_is_found(moved: object, converted: Path) -> None:
    rewrite(converted, lambda told: told["tensors"].update(moved=moved))
    assert ours(converted) == {"not-as-converted": "does not list the tensors that were written"}


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"a": 1, "a": 2}', "[" * 10_000])
def test_a_conversion_that_is_damaged_is_a_finding(text: str, converted: Path) -> None:
    (converted / "conversion.json").write_text(text)
    assert ours(converted).keys() == {"not-as-converted"}


def test_a_conversion_that_is_far_too_long_is_not_read(converted: Path) -> None:
    with (converted / "conversion.json").open("wb") as file:
        file.truncate(5_000_000)
    assert "5000000 bytes" in ours(converted)["not-as-converted"]


@pytest.mark.parametrize("version", [2, None, "1"])
def test_of_a_conversion_of_another_kind_nothing_is_said(version: object, converted: Path) -> None:
    rewrite(converted, lambda told: told.update(schema_version=version, tensors={}))
    assert ours(converted) == {}
