"""The writer: the same bytes every time, all of them or none, in little memory, and a full account of where from."""

from __future__ import annotations

import errno
import filecmp
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from spec_convert import convert
from spec_convert.detection import detect
from spec_convert.errors import Unreadable, UsageError
from spec_convert.formats import Request
from spec_convert.operations import Header
from spec_convert.plan import make_plan
from spec_convert.verifier import open_verifier
from spec_convert.writer import header_bytes, write

Make = Callable[..., Any]  # the drafts of conftest.py
PARTS = ["config.json", "conversion.json", "model.safetensors"]
WIDTH, LAYER = 512, "midlayer.self_attn."


def command(source: Path, output: Path, verifier: Path, *flags: str) -> list[str]:
    call = [sys.executable, "-m", "spec_convert", "--quiet", "convert", source, output, "--verifier", verifier, *flags]
    return [str(part) for part in call]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def changed(folder: Path) -> int | None:
    """When something was last made or removed in it."""
    return folder.stat().st_mtime_ns if folder.exists() else None


@pytest.fixture
def large(tmp_path: Path, make_verifier: Callable[..., Path]) -> Callable[[int], list[Path]]:
    """A draft that is mostly its head, of about this many MB, and its verifier. Zeros, which cost no disk."""

    def make(megabytes: int) -> list[Path]:
        rows = megabytes * 1_000_000 // (2 * WIDTH)
        shapes = {"fc.weight": (WIDTH, 3 * WIDTH), "norm.weight": (WIDTH,), "lm_head.weight": (rows, WIDTH)}
        shapes |= {f"midlayer.mlp.{half}_proj.weight": (WIDTH, WIDTH) for half in ("gate", "up", "down")}
        shapes |= {f"{LAYER}{part}_proj.weight": (WIDTH, 2 * WIDTH) for part in "qkv"}
        shapes |= {f"{LAYER}o_proj.weight": (WIDTH, WIDTH)}
        norms = ("hidden_norm", "input_layernorm", "post_attention_layernorm")
        shapes |= {f"midlayer.{norm}.weight": (WIDTH,) for norm in norms}
        tensors = {name: Header("BF16", shape) for name, shape in shapes.items()}
        sizes = {"hidden_size": WIDTH, "intermediate_size": WIDTH, "num_key_value_heads": 4, "vocab_size": rows}
        config = {
            "architectures": ["LlamaForCausalLM"], "num_attention_heads": 4, "num_hidden_layers": 1,
            "hidden_act": "silu", "max_position_embeddings": 2048, "rms_norm_eps": 1e-6, "draft_vocab_size": rows,
            **sizes,
        }  # fmt: skip
        draft = tmp_path / "large"
        draft.mkdir()
        (draft / "config.json").write_text(json.dumps(config))
        with (draft / "model.safetensors").open("wb") as file:
            file.truncate(file.write(header_bytes(tensors)) + sum(header.nbytes for header in tensors.values()))
        verifier = make_verifier("large-verifier")
        facts = json.loads((verifier / "config.json").read_text()) | sizes
        (verifier / "config.json").write_text(json.dumps(facts))
        return [draft, verifier]

    return make


@pytest.fixture
def write_draft() -> Callable[..., None]:
    """`write` for a draft of conftest.py, whose source a test damages between planning and writing."""

    def run(draft: Any, output: Path, *, before: Callable[[Path], object]) -> None:
        source = draft.write()
        plan = make_plan(detect(source), Request(verifier=open_verifier(draft.verifier)))
        before(source / "model.safetensors")
        write(plan, output, provenance=dict)

    return run


def test_two_runs_give_the_same_bytes(eagle3: Make) -> None:
    draft = eagle3()
    first, second = draft.convert().output, draft.convert().output

    assert names(first) == PARTS
    assert filecmp.cmpfiles(first, second, PARTS, shallow=False) == (PARTS, [], [])


def test_conversion_json_names_the_sha256_of_every_source_file(eagle3: Make) -> None:
    draft = eagle3()
    said = json.loads((draft.convert().output / "conversion.json").read_text())["source"]["sha256"]

    assert said == {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in draft.folder.iterdir()}


def test_conversion_json_accounts_for_every_tensor(eagle3: Make) -> None:
    draft = eagle3(draft_vocab_size=32)
    draft.tensors["lm_head.weight"] = torch.ones(32, 16)
    draft.tensors |= {"d2t": torch.zeros(32, dtype=torch.int64), "t2d": torch.ones(32, dtype=torch.bool)}
    output = draft.convert().output
    tensors = json.loads((output / "conversion.json").read_text())["tensors"]

    moved = {source for row in tensors["moved"] for source in row["sources"]}
    assert moved | tensors["dropped"].keys() == draft.tensors.keys()
    assert tensors["dropped"].keys() == {"d2t", "t2d"}
    assert all(tensors["dropped"].values())
    written = load_file(output / "model.safetensors")
    assert {row["target"]: row["shape"] for row in tensors["moved"]} == {n: list(t.shape) for n, t in written.items()}


def test_strided_and_tied_torch_tensors_are_written_by_value(eagle3: Make, tmp_path: Path) -> None:
    draft = eagle3()
    draft.write()
    (draft.folder / "model.safetensors").unlink()
    strided = draft.tensors["fc.weight"].t().contiguous().t()
    slice_of_more = torch.cat([torch.ones(3), draft.tensors["norm.weight"]])[3:]
    tied = draft.tensors["midlayer.hidden_norm.weight"]
    changed = {"fc.weight": strided, "norm.weight": slice_of_more, "midlayer.input_layernorm.weight": tied}
    torch.save(draft.tensors | changed, draft.folder / "pytorch_model.bin")

    written = load_file(convert(draft.folder, tmp_path / "out", verifier=draft.verifier).output / "model.safetensors")

    assert not strided.is_contiguous()
    torch.testing.assert_close(written["fc.weight"], strided, rtol=0, atol=0)
    torch.testing.assert_close(written["norm.weight"], slice_of_more, rtol=0, atol=0)
    for norm in ("hidden_norm", "input_layernorm"):
        torch.testing.assert_close(written[f"layers.0.{norm}.weight"], tied, rtol=0, atol=0)


@pytest.mark.parametrize("calls", [0, 1, 5])
def test_the_copy_goes_on_through_memory_where_the_kernel_stops(
    eagle3: Make, calls: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    draft = eagle3()
    expected = (draft.convert().output / "model.safetensors").read_bytes()
    copy, counts = os.copy_file_range, iter(range(100))

    def stops(source: int, target: int, count: int, **where: int) -> int:
        if next(counts) >= calls:
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        return copy(source, target, min(count, 100), **where)

    monkeypatch.setattr(os, "copy_file_range", stops)
    assert (draft.convert().output / "model.safetensors").read_bytes() == expected


def test_a_weight_that_is_not_finite_is_named_and_nothing_is_written(eagle3: Make) -> None:
    draft = eagle3()
    draft.tensors["midlayer.mlp.up_proj.weight"][3, 5] = float("nan")

    assert draft.refusal()["not-finite"].where == "midlayer.mlp.up_proj.weight"
    assert sorted(names(draft.folder.parent)) == ["draft", "verifier"]


def test_a_source_that_shrinks_while_it_is_read_is_unreadable(
    eagle3: Make, write_draft: Callable[..., None], tmp_path: Path
) -> None:
    def cut(weights: Path) -> None:
        os.truncate(weights, weights.stat().st_size - 1)

    with pytest.raises(Unreadable, match="ends inside"):
        write_draft(eagle3(), tmp_path / "out", before=cut)

    assert names(tmp_path) == ["draft", "verifier"]


def test_neither_the_draft_nor_the_verifier_is_ever_the_output(eagle3: Make) -> None:
    draft = eagle3()
    source = draft.write()

    for output in (source, source.parent, draft.verifier):
        (source.parent / "config.json").write_text("{}")
        with pytest.raises(UsageError, match="holds"):
            convert(source, output, verifier=draft.verifier, force=True)

    assert names(source) == names(draft.verifier) == ["config.json", "model.safetensors"]


def test_a_check_that_fails_leaves_nothing(eagle3: Make, tmp_path: Path) -> None:
    draft = eagle3()
    plan = make_plan(detect(draft.write()), Request(verifier=open_verifier(draft.verifier)))

    def check(folder: Path) -> None:
        assert names(folder) == PARTS
        raise RuntimeError("the forward pass failed")

    with pytest.raises(RuntimeError, match="forward pass"):
        write(plan, tmp_path / "out", provenance=dict, check=check)

    assert names(tmp_path) == ["draft", "verifier"]


def test_a_full_disk_leaves_nothing_and_shows_no_traceback(large: Callable[[int], list[Path]], tmp_path: Path) -> None:
    draft, verifier = large(10)
    script = 'ulimit -f 2000; exec "$@"'  # no file over 1 or 2 MB: the kernel refuses the write like a full disk does
    call = ["sh", "-c", script, "sh", *command(draft, tmp_path / "work" / "out", verifier)]
    failed = subprocess.run(call, capture_output=True, text=True, check=False)

    assert failed.returncode == 2
    assert "cannot write" in failed.stderr
    assert "Traceback" not in failed.stderr
    assert names(tmp_path / "work") == []


def test_killed_at_any_moment_it_leaves_the_whole_output_or_none(
    large: Callable[[int], list[Path]], tmp_path: Path
) -> None:
    draft, verifier = large(60)
    whole, output = tmp_path / "whole", tmp_path / "work" / "out"
    partial = output.parent / ".out.partial"
    subprocess.run(command(draft, whole, verifier), check=True)
    killed_half_way = 0
    for moment in range(15):
        before = changed(partial)
        run = subprocess.Popen(command(draft, output, verifier, "--force"))
        while changed(partial) == before and run.poll() is None:
            time.sleep(0.001)
        time.sleep(moment * 0.015)
        run.send_signal(signal.SIGKILL)
        run.wait()
        killed_half_way += partial.exists()
        if output.exists():
            assert filecmp.cmpfiles(output, whole, PARTS, shallow=False) == (PARTS, [], [])

    assert killed_half_way
    subprocess.run(command(draft, output, verifier, "--force"), check=True)
    assert names(output.parent) == ["out"]
    assert filecmp.cmpfiles(output, whole, PARTS, shallow=False) == (PARTS, [], [])


def test_of_two_processes_at_once_one_writes_and_the_other_says_why_not(
    large: Callable[[int], list[Path]], tmp_path: Path
) -> None:
    draft, verifier = large(60)
    call = command(draft, tmp_path / "work" / "out", verifier)
    runs = [subprocess.Popen(call, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = [run.communicate()[1] for run in runs]

    assert sorted(run.returncode for run in runs) == [0, 2]
    refusal = next(text for text, run in zip(said, runs, strict=True) if run.returncode)
    assert "another process is writing" in refusal or "exists" in refusal
    assert names(tmp_path / "work") == ["out"]
    assert names(tmp_path / "work" / "out") == PARTS


def test_the_peak_memory_does_not_grow_with_the_checkpoint(large: Callable[[int], list[Path]], tmp_path: Path) -> None:
    draft, verifier = large(300)
    # A small process in between: a child's peak starts at that of its parent, and pytest has torch loaded.
    ask = "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True)"
    ask += "; print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    call = [sys.executable, "-c", ask, *command(draft, tmp_path / "out", verifier)]
    done = subprocess.run(call, check=True, stdout=subprocess.PIPE, text=True)

    assert (tmp_path / "out" / "model.safetensors").stat().st_size > 300_000_000
    assert int(done.stdout.split()[-1]) < 150 * 1024
