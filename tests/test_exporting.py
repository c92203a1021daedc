"""`export` as a whole: what it reports and records, that it proves itself, and that a failure leaves nothing behind."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from spec_convert import exporting
from spec_convert.errors import Refused, Unreadable, UsageError
from spec_convert.exporting import export
from spec_convert.formats import Export, Format, Native, UnifiedDraft
from spec_convert.registry import registry
from spec_convert.tensor_map import TensorMap, drop, move

Make = Callable[..., Any]
Spoil = Callable[[Native], Native]
FILES = ["config.json", "conversion.json", "model.safetensors"]


@pytest.fixture
def unified(eagle3: Make) -> Path:
    return Path(eagle3().convert(speculative_tokens=5).output)


@pytest.fixture
def spoilt(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Spoil], None]:
    """`spoilt("vllm", change)` makes that export of EAGLE-3 write something else than it means to."""

    def spoil(target: str, change: Spoil) -> None:
        known = registry()
        fmt, way = known.exporters("eagle3")[target]

        def write(draft: UnifiedDraft) -> Native:
            return change(way.write(draft))

        bad = replace(fmt, exports=(replace(way, write=write),))
        monkeypatch.setitem(known.formats, fmt.name, bad)

    return spoil


def refusal(unified: Path, to: str) -> dict[str, str]:
    """Where and why reading back was refused; nothing is left behind."""
    before = sorted(unified.parent.iterdir())
    with pytest.raises(Refused) as refused:
        export(unified, unified.parent / "out", to=to)
    assert sorted(unified.parent.iterdir()) == before
    errors = [finding for finding in refused.value.findings if finding.level == "error"]
    assert {finding.rule for finding in errors} == {"export-not-read-back"}
    return {finding.where: finding.message for finding in errors}


def test_the_output_holds_three_files(unified: Path, tmp_path: Path) -> None:
    export(unified, tmp_path / "out", to="vllm")
    assert sorted(os.listdir(tmp_path / "out")) == FILES


def test_the_report_is_what_scripts_rely_on(unified: Path, tmp_path: Path) -> None:
    report = json.loads(json.dumps(export(unified, tmp_path / "out", to="safeai").to_json()))
    assert {"output", "target", "format", "exact", "changed", "tensors", "config", "findings"} <= report.keys()
    assert (report["target"], report["format"], report["exact"], report["written"]) == ("safeai", "eagle3", True, True)
    moved = {one["target"]: one["sources"] for one in report["tensors"]["moved"]}
    assert moved["midlayer.hidden_norm.weight"] == ["layers.0.hidden_norm.weight"]


def test_the_record_says_what_it_was_made_of(unified: Path, verifier: Path, tmp_path: Path) -> None:
    export(unified, tmp_path / "out", to="vllm")
    record = json.loads((tmp_path / "out" / "conversion.json").read_text())
    weights = hashlib.sha256((unified / "model.safetensors").read_bytes()).hexdigest()
    assert record["source"]["sha256"]["model.safetensors"] == weights
    assert record["format"] == "speculators"
    assert record["export"] == {"target": "vllm", "format": "eagle3-vllm", "changed": {}}
    assert record["verifier"]["id"] == str(verifier)


def test_the_same_input_gives_the_same_bytes(unified: Path, tmp_path: Path) -> None:
    one, other = (export(unified, tmp_path / name, to="sglang").output for name in ("one", "other"))
    assert [(one / file).read_bytes() for file in FILES] == [(other / file).read_bytes() for file in FILES]


def test_a_dry_run_writes_nothing_and_says_the_same(unified: Path, tmp_path: Path) -> None:
    planned = export(unified, tmp_path / "out", to="vllm", dry_run=True)
    assert not (tmp_path / "out").exists()
    written = export(unified, tmp_path / "out", to="vllm")
    assert planned.plan.to_json() == written.plan.to_json()
    assert (planned.written, written.written) == (False, True)


def test_an_output_that_exists_is_replaced_only_by_force(unified: Path, tmp_path: Path) -> None:
    export(unified, tmp_path / "out", to="vllm")
    with pytest.raises(UsageError, match="exists"):
        export(unified, tmp_path / "out", to="safeai")
    export(unified, tmp_path / "out", to="safeai", force=True)
    assert "midlayer.hidden_norm.weight" in load_file(tmp_path / "out" / "model.safetensors")


def test_the_source_is_never_replaced(unified: Path) -> None:
    with pytest.raises(UsageError, match="holds"):
        export(unified, unified, to="vllm", force=True)


@pytest.mark.parametrize("dry_run", [True, False])
def test_what_every_conversion_drops_is_dropped_here_too(eagle: Make, tmp_path: Path, dry_run: bool) -> None:
    unified = eagle().convert().output
    tensors = load_file(unified / "model.safetensors")
    save_file(tensors | {"layers.0.self_attn.rotary_emb.inv_freq": torch.ones(3)}, unified / "model.safetensors")
    told = export(unified, tmp_path / "out", to="vllm", dry_run=dry_run).to_json()
    assert "layers.0.self_attn.rotary_emb.inv_freq" in told["tensors"]["dropped"]


def test_a_dtype_is_cast_on_the_way(unified: Path, tmp_path: Path) -> None:
    done = export(unified, tmp_path / "out", to="vllm", dtype="bfloat16")
    held = load_file(tmp_path / "out" / "model.safetensors")
    assert {t.dtype for t in held.values()} == {torch.bfloat16, torch.int64, torch.bool}
    assert done.plan.config is not None
    assert done.plan.config["torch_dtype"] == "bfloat16"


def test_a_checkpoint_that_is_not_unified_is_sent_to_convert(eagle3: Make, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is no unified directory") as refused:
        export(eagle3().write(), tmp_path / "out", to="vllm")
    assert "spec-convert convert" in refused.value.hint


def test_what_another_library_left_unsaid_must_be_completed_first(unified: Path, tmp_path: Path) -> None:
    config = json.loads((unified / "config.json").read_text())
    del config["norm_before_residual"]
    (unified / "config.json").write_text(json.dumps(config))
    with pytest.raises(Exception, match="not a unified config") as refused:
        export(unified, tmp_path / "out", to="vllm")
    assert "spec-convert convert" in str(refused.value.hint)  # type: ignore[attr-defined]


def test_a_map_in_a_narrow_type_must_be_completed_first(unified: Path, tmp_path: Path) -> None:
    tensors = load_file(unified / "model.safetensors")
    save_file(tensors | {"d2t": tensors["d2t"].int()}, unified / "model.safetensors")
    with pytest.raises(UsageError, match="d2t is not stored as unified directories store it"):
        export(unified, tmp_path / "out", to="vllm")


@pytest.mark.parametrize("kind", ["eagle", "eagle3", "mlp"])
def test_an_unknown_target_is_answered_with_those_of_the_type(kind: str, request: Any, tmp_path: Path) -> None:
    source = request.getfixturevalue(kind)().convert().output
    with pytest.raises(UsageError, match="there is no export") as refused:
        export(source, tmp_path / "out", to="tensorrt")
    known = {"eagle": "safeai, sglang, speculators-0.6, vllm", "mlp": "vllm"}
    assert refused.value.hint == f"targets for this type: {known.get(kind, known['eagle'])}"


def test_a_verifier_that_has_moved_can_be_named(unified: Path, verifier: Path, tmp_path: Path) -> None:
    verifier.rename(tmp_path / "moved")
    with pytest.raises(Unreadable):
        export(unified, tmp_path / "out", to="vllm")
    assert export(unified, tmp_path / "out", to="vllm", verifier=tmp_path / "moved").exact


def test_a_verifier_of_another_width_is_refused(unified: Path, make_verifier: Make, tmp_path: Path) -> None:
    with pytest.raises(Refused, match="hidden_size"):
        export(unified, tmp_path / "out", to="vllm", verifier=make_verifier("wide", hidden_size=64))


def test_a_weight_that_is_not_finite_is_not_exported(unified: Path, tmp_path: Path) -> None:
    tensors = load_file(unified / "model.safetensors")
    tensors["norm.weight"][3] = torch.nan
    save_file(tensors, unified / "model.safetensors")
    with pytest.raises(Refused, match="NaN"):
        export(unified, tmp_path / "out", to="vllm")


@pytest.mark.parametrize(
    ("key", "value", "read_back"),
    [
        ("norm_output", True, "norm_output"),
        ("rope_theta", 12345.0, "transformer_layer_config.rope_theta"),
        ("rms_norm_eps", 0.25, "transformer_layer_config.rms_norm_eps"),
        ("eagle_aux_hidden_state_layer_ids", [1, 4, 5], "eagle_aux_hidden_state_layer_ids"),
    ],
)
def test_a_config_that_reads_back_as_another_is_not_kept(
    key: str, value: Any, read_back: str, unified: Path, spoilt: Callable[[str, Spoil], None]
) -> None:
    spoilt("vllm", lambda native: replace(native, config={**native.config, key: value}))
    assert set(refusal(unified, "vllm")) == {f"config.json: {read_back}"}


def test_a_tensor_that_reads_back_as_another_is_not_kept(unified: Path, spoilt: Callable[[str, Spoil], None]) -> None:
    """Two norms of one shape, exchanged: names, dtypes and shapes are all right."""

    def exchanged(native: Native) -> Native:
        names = {"layers.0.hidden_norm.weight": "norm.weight", "norm.weight": "layers.0.hidden_norm.weight"}
        rest = [row for row in native.table if row.text not in ("norm.weight", NORMS)]
        kept = [move(f"layers.0.{n}.weight", f"layers.0.{n}.weight") for n in ("input_layernorm", LAST)]
        return replace(native, table=TensorMap(*rest, *kept, *(move(a, b) for a, b in names.items())))

    spoilt("vllm", exchanged)
    found = refusal(unified, "vllm")
    assert found == dict.fromkeys(
        ("layers.0.hidden_norm.weight", "norm.weight"), "holds other numbers when it is read back"
    )


LAST = "post_attention_layernorm"
NORMS = f"layers.0.{{n:hidden_norm|input_layernorm|{LAST}}}.weight"


def test_a_layout_that_is_recognised_as_another_is_not_kept(
    unified: Path, spoilt: Callable[[str, Spoil], None]
) -> None:
    named = {"architectures": ["LlamaForCausalLMEagle3"]}
    spoilt("vllm", lambda native: replace(native, config={**native.config, **named}))
    assert "OUTPUT" in refusal(unified, "vllm")


def test_a_tensor_that_is_left_out_without_a_word_is_not_kept(
    eagle3: Make, spoilt: Callable[[str, Spoil], None]
) -> None:
    draft = eagle3()
    draft.tensors["embed_tokens.weight"] = torch.ones(32, 16)
    lost = drop("embed_tokens.weight", because="of a mistake")
    spoilt(
        "vllm",
        lambda native: replace(
            native, table=TensorMap(*(r for r in native.table if r.text != "embed_tokens.weight"), lost)
        ),
    )
    assert "when read back" in refusal(draft.convert().output, "vllm")["embed_tokens.weight"]


def test_a_tensor_that_no_row_names_is_refused(unified: Path, spoilt: Callable[[str, Spoil], None]) -> None:
    spoilt("vllm", lambda native: replace(native, table=TensorMap(*(r for r in native.table if r.text != "d2t"))))
    with pytest.raises(Refused) as refused:
        export(unified, unified.parent / "out", to="vllm")
    assert [(f.rule, f.where) for f in refused.value.findings] == [("unclaimed-tensor", "d2t")]


def test_two_formats_cannot_write_one_target() -> None:
    """Which of the two is written must not depend on the order of plugins."""
    from spec_convert.registry import _refuse_double_exports

    known = registry()
    fmt = known["eagle3-vllm"]
    with pytest.raises(ValueError, match="which `eagle3-vllm` does already"):
        _refuse_double_exports([fmt, replace(fmt, name="mine")])
    _refuse_double_exports([fmt, replace(fmt, name="mine", exports=())])


def test_formats_made_of_others_do_not_inherit_their_exports() -> None:
    writers = {fmt.name: sorted((way.target, way.of) for way in fmt.exports) for fmt in registry().formats.values()}
    assert {name: ways for name, ways in writers.items() if ways} == {
        "eagle": [("safeai", "eagle"), ("sglang", "eagle"), ("vllm", "eagle"), ("vllm", "eagle_mlp")],
        "eagle3": [("safeai", "eagle3")],
        "eagle3-specforge": [("sglang", "eagle3")],
        "eagle3-vllm": [("vllm", "eagle3")],
        "speculators": [("speculators-0.6", "eagle3")],
        "speculators-eagle": [("speculators-0.6", "eagle")],
    }


def test_every_target_is_of_a_type_that_exists() -> None:
    from spec_convert.unified import Eagle3Config, EagleConfig, EagleMlpConfig, PEagleConfig

    models = (EagleConfig, Eagle3Config, EagleMlpConfig, PEagleConfig)
    types = {model.model_fields["speculators_model_type"].annotation.__args__[0] for model in models}  # type: ignore[union-attr]
    assert {way.of for fmt in registry().formats.values() for way in fmt.exports} <= types


def test_the_module_knows_no_format() -> None:
    """Formats come through the registry: none is named here."""
    source = Path(exporting.__file__).read_text()
    assert not [name for name in (*registry().formats, *registry().targets) if f'"{name}"' in source]


def test_an_export_is_data() -> None:
    assert set(Export.__dataclass_fields__) == {"target", "of", "write"}
    assert Format.__dataclass_fields__["exports"].default == ()


def test_a_table_of_the_verifiers_is_stored_as_it_is(old_library: Make, make_verifier: Make, tmp_path: Path) -> None:
    """SafeAILab's layout always holds an embedding: a shared one is the verifier's, bit for bit."""
    base = make_verifier("square", num_attention_heads=4)
    draft = old_library()
    shapes = {"q_proj": (16, 16), "k_proj": (8, 16), "v_proj": (8, 16), "o_proj": (16, 16)}
    draft.tensors |= {f"transformer.self_attn.{name}.weight": torch.ones(shape) for name, shape in shapes.items()}
    unified = draft.convert(verifier=base).output
    done = export(unified, tmp_path / "out", to="safeai")
    written = load_file(tmp_path / "out" / "model.safetensors")["embed_tokens.weight"]
    assert torch.equal(written, load_file(base / "model.safetensors")["model.embed_tokens.weight"])
    assert "the verifier's model.embed_tokens.weight" in done.changed["embed_tokens.weight"]
    (moved,) = (one for one in done.plan.tensors_json()["moved"] if one["target"] == "embed_tokens.weight")
    assert moved["sources"] == ["verifier/model.embed_tokens.weight"]


def test_an_export_of_plain_renames_needs_no_torch(unified: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from spec_convert.cli import run; assert run(sys.argv[1:]) == 0; "
        "assert not {'torch', 'transformers', 'huggingface_hub'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, "export", unified, tmp_path / "out", "--to", "safeai"], check=True)
