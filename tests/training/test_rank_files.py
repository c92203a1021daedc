"""`spec-convert collect --files`: what other captures have left, one file a text, perhaps one for each rank."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from spec_convert.cli import run
from spec_convert.training.capture.rank_files import _rank_of
from spec_convert.training.store.reading import open_store

from .capturing import states_of
from .small import HIDDEN, random_samples, write_prepared

LAYERS = (2, 3, 6)
LENGTHS = [5, 9, 1, 12]


@pytest.fixture(scope="module")
def prepared(verifier: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "prepared"
    write_prepared(folder, verifier, random_samples(LENGTHS))
    return folder


@pytest.fixture
def collect(prepared: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """`collect("--filter-rank", 0)`: its exit code and what it says on stderr. The files are in `states`."""

    def call(*args: object) -> tuple[int, str]:
        options = ["--files", str(tmp_path / "states"), "--layers", "2,3,6", "--dtype", "float32", *map(str, args)]
        code = run(["collect", str(prepared), str(tmp_path / "out"), *options])
        return code, capfd.readouterr().err

    return call


def leave(path: Path, sample: int, change: Callable[[Tensor], Tensor] = lambda states: states) -> None:
    """The file of one sample, as a capture leaves it; a .pt file spells the tokens `input_ids`."""
    ids = random_samples(LENGTHS)[sample].input_ids
    states = change(states_of(ids.tolist(), LAYERS, HIDDEN)).contiguous()
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".pt":
        torch.save({"input_ids": ids, "hidden_states": states}, path)
    else:
        save_file({"token_ids": ids, "hidden_states": states}, path)


def require_complete(folder: Path, count: int = len(LENGTHS)) -> None:
    store = open_store(folder)
    samples = random_samples(LENGTHS)[:count]
    for sample, stored in zip(samples, store, strict=True):
        assert stored.hidden_states is not None
        assert torch.equal(stored.input_ids, sample.input_ids)
        assert torch.equal(stored.hidden_states, states_of(sample.input_ids.tolist(), LAYERS, HIDDEN))


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_files_in_any_order_are_found_by_their_tokens(collect: Any, tmp_path: Path, suffix: str) -> None:
    for name, sample in enumerate([2, 0, 3, 1]):
        leave(tmp_path / "states" / f"part-{name % 2}" / f"{name}{suffix}", sample)
    code, err = collect()
    assert code == 0, err
    require_complete(tmp_path / "out")
    assert open_store(tmp_path / "out").manifest.request["engine"] == "files"


def test_equal_copies_of_several_ranks_are_one(collect: Any, tmp_path: Path) -> None:
    for sample in range(len(LENGTHS)):
        for rank in range(2):
            leave(tmp_path / "states" / f"{sample}_rank{rank}.safetensors", sample)
    assert collect()[0] == 0
    require_complete(tmp_path / "out")


def test_ranks_that_disagree_are_refused_unless_one_is_chosen(collect: Any, tmp_path: Path) -> None:
    for sample in range(len(LENGTHS)):
        leave(tmp_path / "states" / "rank_0" / f"{sample}.pt", sample)
        leave(tmp_path / "states" / "rank_1" / f"{sample}.pt", sample, lambda states: states + 1)
    code, err = collect()
    assert code == 2
    assert "hold different states of one text: each may be a part of them" in err
    assert "--filter-rank 0" in err
    code, err = collect("--filter-rank", 0)
    assert code == 0, err
    require_complete(tmp_path / "out")


def test_parts_of_the_hidden_size_are_refused(collect: Any, tmp_path: Path) -> None:
    for sample in range(len(LENGTHS)):
        for rank, part in enumerate((slice(None, HIDDEN // 2), slice(HIDDEN // 2, None))):
            path = tmp_path / "states" / f"rank{rank}" / f"{sample}.pt"
            leave(path, sample, lambda states, part=part: states[..., part])
    for chosen in ([], ["--filter-rank", 1]):
        code, err = collect(*chosen)
        assert code == 2
        assert "a part of the hidden size is of no use" in err


def test_states_of_a_part_of_a_text_are_refused(collect: Any, tmp_path: Path) -> None:
    """Laid end to end in a shard they would be taken for those of the next text."""
    for sample in range(len(LENGTHS)):
        leave(tmp_path / "states" / f"{sample}.pt", sample, lambda states: states[1:] if len(states) == 9 else states)
    code, err = collect()
    assert code == 2
    assert f"1.pt holds states of [8, 3, {HIDDEN}], and those of 9 tokens in 3 layers of the verifier are" in err


def test_a_dtype_that_nobody_stores_is_refused_with_those_that_are(collect: Any, tmp_path: Path) -> None:
    for sample in range(len(LENGTHS)):
        leave(tmp_path / "states" / f"{sample}.pt", sample, lambda states: states.int())
    code, err = collect()
    assert code == 2
    assert "holds int32, from which no float32 can be made" in err
    assert "states are bfloat16, float16, float32" in err


def test_what_is_missing_is_counted_and_nothing_is_written(collect: Any, tmp_path: Path) -> None:
    for sample in (0, 2):
        leave(tmp_path / "states" / f"{sample}.safetensors", sample)
    code, err = collect()
    assert code == 2
    assert f"2 of 4 samples are in no file below {tmp_path / 'states'}, sample 1 first" in err
    assert "--max-samples 1 takes those before the first" in err
    assert not (tmp_path / "out").exists()
    assert collect("--max-samples", 1)[0] == 0
    require_complete(tmp_path / "out", 1)


def test_layers_are_never_guessed(prepared: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    leave(tmp_path / "states" / "0.pt", 0)
    args = ["collect", str(prepared), str(tmp_path / "out"), "--files", str(tmp_path / "states")]
    assert run(args) == 2
    assert "the files do not say which layers they hold" in capfd.readouterr().err


def test_a_folder_without_files_is_refused(collect: Any, tmp_path: Path) -> None:
    leave(tmp_path / "states" / "rank_0" / "0.pt", 0)
    code, err = collect("--filter-rank", 3)
    assert code == 2
    assert "there are no .safetensors or .pt files of rank 3 below" in err


class Harmful:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("harm-was-done"),))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (Harmful(), "cannot be read"),
        ({"input_ids": torch.arange(3), "states": torch.zeros(3)}, "1.pt holds no tensor hidden_states"),
        ({"hidden_states": torch.zeros(3)}, "1.pt holds no tensor token_ids or input_ids"),
        (torch.zeros(3), "1.pt holds no tensor token_ids or input_ids"),
        ({"token_ids": torch.zeros(3)}, "1.pt holds float32 for token ids"),
        ({"input_ids": torch.arange(3), "hidden_states": torch.tensor(1.0)}, "1.pt holds states of []"),
    ],
)
def test_what_holds_no_states_is_named_and_never_executed(
    collect: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: object, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    leave(tmp_path / "states" / "0.pt", 0)
    if isinstance(content, dict) and "input_ids" in content:
        content["input_ids"] = random_samples(LENGTHS)[1].input_ids
    torch.save(content, tmp_path / "states" / "1.pt")
    code, err = collect("--max-samples", 2)
    assert code == 2
    assert message in err
    assert not Path("harm-was-done").exists()


@pytest.mark.parametrize(
    "path",
    [
        "rank_1/a.pt", "a_rank1.pt", "a_tp1.safetensors", "x/rank-1/0.pt", "tp_rank_1/a.pt", "a.rank1.pt", "TP1/a.pt",
        "dp_rank_0/tp_rank_1/a.pt", "tp2_rank1/a.pt", "frank/a-rank-1-of-2.pt",
    ],
)  # fmt: skip
def test_a_rank_is_read_from_the_path(path: str) -> None:
    assert _rank_of(Path(path)) == 1


@pytest.mark.parametrize("path", ["a.pt", "frank1/a.pt", "dp_rank_1/a.pt", "rank_0/a_rank1.pt", "http1/a.pt"])
def test_a_path_that_names_no_rank_or_two_is_refused_by_the_filter(collect: Any, tmp_path: Path, path: str) -> None:
    leave(tmp_path / "states" / path, 0)
    code, err = collect("--filter-rank", 1)
    assert code == 2
    assert f"{path} names " in err
