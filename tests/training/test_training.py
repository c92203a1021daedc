"""`spec-convert train` on real states of the small verifier: every kind learns, and leaves a draft that is right."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from spec_convert import convert, load_draft, validate
from spec_convert.cli import run
from spec_convert.errors import UsageError
from spec_convert.training import training
from spec_convert.training.recipes import RECIPES
from spec_convert.training.settings import TrainSettings
from spec_convert.training.trainer.trained import Trained

from .small import random_samples, write_prepared

LAYERS = (1, 3, 5)
KINDS = tuple(RECIPES)
OWN: dict[str, dict[str, Any]] = {
    "eagle3": {"target_layers": LAYERS},
    "eagle3-shared-head": {"target_layers": LAYERS},
    "p-eagle": {"target_layers": LAYERS, "ttt_steps": 4, "num_layers": 2},
}
Train = Callable[..., Trained]


@pytest.fixture(scope="session")
def states(verifier: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `generate` captures of the small verifier, whose answers repeat their own tokens: easy to learn."""
    folder = tmp_path_factory.mktemp("states")
    samples = random_samples([24, 31, 17, 40, 22, 35], vocabulary=12)
    prepared = write_prepared(folder / "prepared", verifier, samples).folder
    layers = ",".join(map(str, (*LAYERS, 6)))
    flags = ["--engine", "transformers", "--layers", layers, "--dtype", "float32"]
    assert run(["generate", str(prepared), str(folder / "states"), *flags]) == 0
    return folder / "states"


@pytest.fixture(scope="session")
def copied(states: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same once more, to look at between epochs."""
    return shutil.copytree(states, tmp_path_factory.mktemp("copied") / "states")


@pytest.fixture(scope="session")
def vocabulary(states: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vocabulary") / "of_64"
    assert run(["vocab", str(states), str(folder), "--draft-vocab-size", "64"]) == 0
    return folder


@pytest.fixture
def settings(verifier: Path, states: Path, tmp_path: Path) -> Callable[..., TrainSettings]:
    mask = tmp_path / "mask.toml"
    mask.write_text("mask_token_id = 511\n")

    def make(kind: str, **more: Any) -> TrainSettings:
        common: dict[str, Any] = {
            "draft": kind, "verifier_name_or_path": str(verifier), "data_path": states, "val_data_path": None,
            "save_path": tmp_path / "run", "total_seq_len": 48, "epochs": 5, "lr": 3e-3, "dtype": "float32",
        }  # fmt: skip
        if kind == "p-eagle":
            common["draft_config"] = str(mask)
        return TrainSettings(**common | OWN.get(kind, {}) | more)

    return make


def lines(trained: Trained) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (trained.folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_learns_and_leaves_a_draft_that_is_right(
    kind: str, settings: Callable[..., TrainSettings], verifier: Path, copied: Path
) -> None:
    trained = training.train(settings(kind, val_data_path=copied))
    assert trained.exit_code == 0
    assert trained.steps == trained.planned_steps
    losses = [line["losses"][0] for line in lines(trained) if line["kind"] == "held_out"]
    last = int(RECIPES[kind].phases[0].until * len(losses))  # later losses are others, and larger
    assert losses[last - 1] < losses[0]
    assert trained.draft is not None
    assert not validate(trained.draft, verifier=verifier, level="forward").has_errors


def test_the_command_leaves_a_page_of_what_it_did(
    verifier: Path, states: Path, copied: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    flags = ["--draft", "hass", "--verifier", verifier, "--data-path", states, "--val-data-path", copied, "--json"]
    flags += ["--save-path", tmp_path / "run", "--epochs", 2, "--total-seq-len", 48, "--dtype", "float32"]
    capfd.readouterr()
    assert run(["train", *map(str, flags)]) == 0
    told = json.loads(capfd.readouterr().out)
    assert told["report"] == str(tmp_path / "run" / "report.html")
    page = Path(told["report"]).read_text()
    assert f"hass for {verifier}: done after step {told['steps']:,}" in page
    assert f'<span class="figure">{told["held_out"]["tau"]:.2f}</span>' in page
    assert run(["report", str(tmp_path / "run"), "--json"]) == 0
    document = json.loads(capfd.readouterr().out)["training"]
    assert document["over"] is True
    assert document["log"]["lines"][-1] in (told["held_out"], told["metrics"])
    assert [draft["name"] for draft in document["drafts"] if draft["best"]] == [f"epoch_{told['best_epoch']:04d}"]


def test_a_small_vocabulary_is_the_one_that_was_given(
    settings: Callable[..., TrainSettings], vocabulary: Path, verifier: Path
) -> None:
    paths = {f"{name}_path": vocabulary / f"{name}.npy" for name in ("d2t", "t2d")}
    trained = training.train(settings("eagle3", epochs=1, **paths))
    assert trained.draft is not None
    draft = load_draft(trained.draft, verifier=verifier)
    assert draft.head.shape[0] == 64
    assert torch.equal(draft.get_buffer("d2t"), torch.from_numpy(np.load(vocabulary / "d2t.npy")))


def test_a_shared_head_is_the_verifiers_and_stays_so(
    settings: Callable[..., TrainSettings], capfd: pytest.CaptureFixture[str]
) -> None:
    stored = training.train(settings("eagle3-shared-head", epochs=1, with_head=True))
    assert stored.draft is not None
    from safetensors.torch import load_file

    tensors = load_file(stored.draft / "model.safetensors")
    draft = load_draft(stored.draft)
    assert not {"d2t", "t2d", "embed_tokens.weight"} & tensors.keys()
    assert torch.equal(tensors["lm_head.weight"], draft.head)


def test_training_goes_on_with_a_published_draft(
    settings: Callable[..., TrainSettings], verifier: Path, tmp_path: Path
) -> None:
    """Exported to the authors' layout, read back by the registry, trained on."""
    from spec_convert.exporting import export

    first = training.train(settings("eagle", epochs=2))
    assert first.draft is not None
    export(first.draft, tmp_path / "published", to="safeai", verifier=verifier)
    again = training.train(
        settings("eagle", epochs=1, from_pretrained=str(tmp_path / "published"), save_path=tmp_path / "b")
    )
    begun = [line["loss"] for line in lines(first) if line["kind"] == "train"]
    went_on = [line["loss"] for line in lines(again) if line["kind"] == "train"]
    assert went_on[0] < begun[0]


def test_the_checkpoint_is_the_draft_in_memory(
    settings: Callable[..., TrainSettings], verifier: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = []
    make = training._draft

    def remembered(*given: Any) -> Any:
        kept.append(make(*given))
        return kept[0]

    monkeypatch.setattr(training, "_draft", remembered)
    trained = training.train(settings("eagle3", epochs=2))
    assert trained.draft is not None
    loaded = load_draft(trained.draft, verifier=verifier)
    ids, fed = torch.randint(512, (1, 9)), torch.randn(1, 9, 3 * 64)
    with torch.no_grad():
        torch.testing.assert_close(loaded(ids, fed).logits, kept[0].eval()(ids, fed).logits, rtol=0, atol=0)


def test_a_conversion_of_the_trained_draft_changes_nothing(
    settings: Callable[..., TrainSettings], verifier: Path, tmp_path: Path
) -> None:
    trained = training.train(settings("eagle3", epochs=1))
    assert trained.draft is not None
    convert(trained.draft, tmp_path / "again", verifier=verifier)
    for name in ("config.json", "model.safetensors"):
        assert (tmp_path / "again" / name).read_bytes() == (trained.draft / name).read_bytes()


def test_another_vocabulary_of_the_same_size_and_other_data_are_another_request(
    settings: Callable[..., TrainSettings], vocabulary: Path, copied: Path, tmp_path: Path
) -> None:
    """The state holds the map, and the verifier's word would be read at the tokens of the other one."""
    paths = {f"{name}_path": vocabulary / f"{name}.npy" for name in ("d2t", "t2d")}
    training.train(settings("eagle3", epochs=1, max_steps=1, **paths))
    t2d = np.roll(np.load(paths["t2d_path"]), 1)
    np.save(tmp_path / "t2d.npy", t2d)
    np.save(tmp_path / "d2t.npy", t2d.nonzero()[0] - np.arange(t2d.sum()))
    for more, said in (
        ({f"{name}_path": tmp_path / f"{name}.npy" for name in ("d2t", "t2d")}, "vocabulary was"),
        (paths | {"val_data_path": copied}, "held_out was None"),
    ):
        with pytest.raises(UsageError, match=f"another request: [^;]*{said}|; {said}"):
            training.train(settings("eagle3", epochs=1, max_steps=1, **more))


def test_tokens_that_are_cut_off_are_counted(
    settings: Callable[..., TrainSettings], monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr("spec_convert.training.trainer.processes.say", said.append)
    training.train(settings("eagle", epochs=1, max_steps=1, total_seq_len=32))
    counted = "2 of 6 samples are longer than --total-seq-len 32; their last 11 of 169 tokens are not read"
    assert said[0].endswith(counted)


def test_a_gpu_that_is_too_small_is_no_bug(
    settings: Callable[..., TrainSettings], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*given: Any, **named: Any) -> Trained:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(training, "run", full)
    with pytest.raises(UsageError, match="rows of 48 tokens: CUDA out of memory") as problem:
        training.train(settings("eagle"))
    assert "--total-seq-len" in problem.value.hint


def test_the_command_says_what_it_made(
    states: Path, verifier: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    flags = {
        "--draft": "eagle", "--verifier-name-or-path": verifier, "--data-path": states, "--val-data-path": states,
        "--save-path": tmp_path / "run", "--epochs": 1, "--total-seq-len": 64,
    }  # fmt: skip
    given = [str(part) for pair in flags.items() for part in pair]
    assert run(["train", *given]) == 2
    assert "nothing is held out" in capfd.readouterr().err
    given[given.index("--val-data-path") : given.index("--val-data-path") + 2] = []
    assert run(["train", *given, "--json"]) == 0
    told = json.loads(capfd.readouterr().out)
    assert told["epochs"] == 1
    assert Path(told["draft"]).is_dir()
