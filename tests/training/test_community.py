"""The community's files hold what a store holds, grow as safely, and those of others are believed in nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spec_convert.errors import UsageError
from spec_convert.training.store.community_reading import PtFolder, open_pt
from spec_convert.training.store.community_writing import writing_pt
from spec_convert.training.store.manifest import LayerFacts, Manifest, TokenizerFacts
from spec_convert.training.store.opening import open_data
from spec_convert.training.store.reading import Store, open_store
from spec_convert.training.store.sample import Sample
from spec_convert.training.store.writing import writing
from spec_convert.training.vocabulary.mapping import token_counts

from .small import random_samples

WIDTH = 4
LAYERS = LayerFacts(ids=(2, 3, 6), num_hidden_layers=6, hidden_size=WIDTH, dtype="bfloat16")
LENGTHS = [3, 1, 7, 2, 5]
FIRSTS = [0, 3]


def manifest(**changes: object) -> Manifest:
    tokenizer = TokenizerFacts(name="a model", fingerprint="0" * 64, vocab_size=256)
    draft = Manifest(
        kind="hidden_states", request={"seed": 1}, tokenizer=tokenizer, layers=LAYERS, made_with={"torch": "2"},
        counts={"samples": 5}, planned_shards=2,
    )  # fmt: skip
    return draft.model_copy(update=changes)


def captured(lengths: Sequence[int] = LENGTHS, *, dtype: torch.dtype = torch.bfloat16) -> list[Sample]:
    """Samples with states; their numbers leave gaps, as those do of which some were left out."""
    generator = torch.Generator().manual_seed(7)
    return [
        replace(
            sample,
            index=3 * sample.index + 1,
            hidden_states=torch.randn(len(sample), len(LAYERS.ids), WIDTH, generator=generator).to(dtype),
        )
        for sample in random_samples(lengths)
    ]


def write(folder: Path, samples: Sequence[Sample] | None = None) -> Path:
    samples = captured() if samples is None else samples
    with writing_pt(folder, manifest(), firsts=FIRSTS) as writer:
        writer.write(0, samples[:3])
        writer.write(1, samples[3:])
    return folder


def same(one: Sample, other: Sample) -> bool:
    assert one.hidden_states is not None
    assert other.hidden_states is not None
    return (
        one.index == other.index
        and torch.equal(one.input_ids, other.input_ids)
        and torch.equal(one.loss_mask, other.loss_mask)
        and one.hidden_states.dtype == other.hidden_states.dtype
        and torch.equal(one.hidden_states, other.hidden_states)
    )


def version_1(length: int = 3, **changes: Any) -> dict[str, Any]:
    return {
        "input_ids": torch.arange(length),
        "loss_mask": torch.ones(length, dtype=torch.int64),
        "hidden_states": [torch.full((length, WIDTH), float(layer)) for layer in range(3)],
        **changes,
    }


def version_0(length: int = 3, **changes: Any) -> dict[str, Any]:
    states = version_1(length)["hidden_states"]
    return {
        "input_ids": torch.arange(length),
        "loss_mask": torch.ones(length),
        "hidden_state": torch.cat(states, dim=1),
        "target": torch.full((length, WIDTH), 9.0),
        **changes,
    }


def of_others(folder: Path, *files: dict[str, Any]) -> Path:
    for number, data in enumerate(files):
        torch.save(data, folder / f"data_{number}.pt")
    return folder


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.sampled_from(["bfloat16", "float16", "float32"]))
def test_a_store_and_the_files_made_of_it_hold_equal_samples(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int], dtype: str
) -> None:
    folder = tmp_path_factory.mktemp("data")
    facts = manifest(planned_shards=1, layers=LAYERS.model_copy(update={"dtype": dtype}))
    with writing(folder / "store", facts) as writer:
        writer.write(0, captured(lengths, dtype=getattr(torch, dtype)))
    store = open_store(folder / "store")
    with writing_pt(folder / "pt", store.manifest.model_copy(update={"shards": ()}), firsts=[0]) as sink:
        sink.write(0, list(store))
    read = open_data(folder / "pt")
    assert isinstance(read, PtFolder)
    assert all(map(same, read, store))
    assert torch.equal(read.lengths, store.lengths)
    assert (read.layers, read.tokenizer) == (store.layers, store.tokenizer)
    assert token_counts(read, 256).tolist() == token_counts(store, 256).tolist()


def test_the_files_are_as_the_community_reads_them(tmp_path: Path) -> None:
    samples = captured()
    write(tmp_path, samples)
    for number, sample in enumerate(samples):
        file = tmp_path / f"data_{number}.pt"
        data = torch.load(file, weights_only=True, mmap=True)
        assert sample.hidden_states is not None
        assert (data["input_ids"].dtype, data["loss_mask"].dtype) == (torch.int64, torch.int64)
        assert torch.equal(torch.stack(data["hidden_states"], 1), sample.hidden_states)
        assert all(state.is_contiguous() for state in data["hidden_states"])
        assert file.stat().st_size < 6000, "a tensor has brought along what it is a view of"
    assert json.loads((tmp_path / "sample_lengths.json").read_text()) == {"0": 3, "1": 1, "2": 7, "3": 2, "4": 5}
    config = json.loads((tmp_path / "data_config.json").read_text())
    assert config["model"] == {"target_model_path": "a model", "hidden_size": WIDTH}
    assert config["hidden_states"]["layer_ids"] == [2, 3, 6]
    assert config["spec_convert"]["layers"]["last"] == "before_norm"
    everything_named_pt = {path.name for path in tmp_path.rglob("*pt")}  # what `speculators` takes for samples
    assert everything_named_pt == {f"data_{number}.pt" for number in range(5)}


def test_the_files_say_what_they_are_without_our_manifest(tmp_path: Path) -> None:
    (write(tmp_path) / "manifest.json").unlink()
    read = open_pt(tmp_path)
    assert read.layers == LAYERS
    assert all(map(same, read, captured()))


def test_shards_may_come_in_any_order(tmp_path: Path) -> None:
    samples = captured()
    with writing_pt(tmp_path, manifest(), firsts=FIRSTS) as writer:
        writer.write(1, samples[3:])
    with writing_pt(tmp_path, manifest(), firsts=FIRSTS) as writer:
        assert writer.done == {1}
        writer.write(0, samples[:3])
    assert all(map(same, open_pt(tmp_path), samples))


def test_what_a_kill_left_is_removed_and_written_again(tmp_path: Path) -> None:
    samples = captured()
    with writing_pt(tmp_path, manifest(), firsts=FIRSTS) as writer:
        writer.write(0, samples[:3])
    (tmp_path / "data_3.pt").write_bytes(b"whole, but not named by the manifest")
    (tmp_path / "data_4.pt.partial").write_bytes(b"half")
    lengths = json.loads((tmp_path / "sample_lengths.json").read_text())
    (tmp_path / "sample_lengths.json").write_text(json.dumps({**lengths, "3": 99}))
    with writing_pt(tmp_path, manifest(), firsts=FIRSTS) as writer:
        assert not (tmp_path / "data_3.pt").exists()
        assert not (tmp_path / "data_4.pt.partial").exists()
        writer.write(1, samples[3:])
    assert all(map(same, open_pt(tmp_path), samples))


def test_a_kill_at_any_instant_loses_and_repeats_nothing(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    call = "from tests.training.test_community import kill_everywhere as kill; import sys; print(kill(sys.argv[1]))"
    ended = subprocess.run([sys.executable, "-c", call, tmp_path], cwd=root, check=True, stdout=subprocess.PIPE)
    kills = int(ended.stdout)
    assert kills > 15
    for at in range(1, kills + 2):
        assert all(map(same, open_pt(write_left(tmp_path / str(at))), captured()))


def kill_everywhere(folder: str) -> int:
    """Write into folders 1, 2, … of ``folder``, killed when a file is opened, renamed or removed for that time.

    Returns how often a writer was killed before one came to its end. Runs in a process of its own, which forks.
    """
    write(Path(folder) / "imported")  # importing opens files, too
    for at in count(1):
        (output := Path(folder) / str(at)).mkdir()
        if (child := os.fork()) == 0:
            _kill_at(at)
            write(output)
            os._exit(0)
        if os.waitpid(child, 0)[1] == 0:
            return at - 1
    raise AssertionError


def _kill_at(at: int) -> None:
    calls = count(1)

    def watch(event: str, arguments: object) -> None:
        if event in ("open", "os.rename", "os.remove") and next(calls) == at:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)


def write_left(folder: Path) -> Path:
    samples = captured()
    with writing_pt(folder, manifest(), firsts=FIRSTS) as writer:
        for number, some in enumerate((samples[:3], samples[3:])):
            if number not in writer.done:
                writer.write(number, some)
    return folder


def test_a_store_does_not_go_on_as_files_nor_files_as_a_store(tmp_path: Path) -> None:
    with writing(tmp_path / "store", manifest()):
        pass
    with (
        pytest.raises(UsageError, match="its layout is 'safetensors', not 'pt'"),
        writing_pt(tmp_path / "store", manifest(), firsts=FIRSTS),
    ):
        pass
    write(tmp_path / "pt")
    with pytest.raises(UsageError, match="its layout is 'pt'"), writing(tmp_path / "pt", manifest()):
        pass
    with pytest.raises(UsageError, match="not a store"):
        open_store(tmp_path / "pt")


def test_a_finished_file_that_is_gone_is_not_passed_over(tmp_path: Path) -> None:
    (write(tmp_path) / "data_1.pt").unlink()
    with (
        pytest.raises(UsageError, match=r"data_0\.pt to data_2\.pt is not as it was written"),
        writing_pt(tmp_path, manifest(), firsts=FIRSTS),
    ):
        pass


def test_unfinished_files_are_not_read(tmp_path: Path) -> None:
    with writing_pt(tmp_path, manifest(), firsts=FIRSTS) as writer:
        writer.write(0, captured()[:3])
    with pytest.raises(UsageError, match="is unfinished: 1 of 2"):
        open_data(tmp_path)


@pytest.mark.parametrize("lost", ["data_2.pt", "data_4.pt"])
def test_a_lost_file_is_missed(tmp_path: Path, lost: str) -> None:
    (write(tmp_path) / lost).unlink()
    with pytest.raises(UsageError, match=r"lacks data_2\.pt|holds 4 of 5 samples"):
        open_pt(tmp_path)


def test_files_of_others_are_read_in_both_versions_once_it_is_said_what_they_are(tmp_path: Path) -> None:
    for version, data, last in ((0, version_0, 9.0), (1, version_1, 2.0)):
        folder = tmp_path / str(version)
        folder.mkdir()
        of_others(folder, data(3), data(5))
        ids = (2, 3, 4, 6) if version == 0 else (2, 3, 6)
        read = open_data(folder, layer_ids=ids, last="after_norm")
        assert isinstance(read, PtFolder)
        assert read.lengths.tolist() == [3, 5]
        sample = read[1]
        assert (sample.index, sample.loss_mask.dtype, sample.input_ids.tolist()) == (1, torch.bool, [0, 1, 2, 3, 4])
        assert sample.hidden_states is not None
        assert sample.hidden_states.shape == (5, len(ids), WIDTH)
        assert sample.hidden_states[0, :, 0].tolist() == [*([0.0, 1.0, 2.0][: len(ids) - 1]), last]
        assert (read.layers.ids, read.layers.num_hidden_layers, read.layers.last) == (ids, 6, "after_norm")


def test_states_of_others_are_not_handed_out_before_it_is_said_what_they_are(tmp_path: Path) -> None:
    (tmp_path / "data_config.json").write_text(json.dumps({"hidden_states": {"layer_ids": [2, 3, 5]}}))
    read = open_data(of_others(tmp_path, version_1()))
    assert isinstance(read, PtFolder)
    assert read.lengths.tolist() == [3]
    assert token_counts(read, 8).tolist() == [1, 1, 1, 0, 0, 0, 0, 0]
    for ask in (lambda: read.layers, lambda: read[0]):
        with pytest.raises(UsageError, match="does not say which layers"):
            ask()


@pytest.mark.parametrize(
    ("said", "says"),
    [
        ({"layer_ids": (2, 3, 6)}, "only one is given"),
        ({"last": "before_norm"}, "only one is given"),
        ({"layer_ids": (2, 6), "last": "before_norm"}, r"the states of 3 layers, and `layer_ids` are \(2, 6\)"),
        ({"layer_ids": (3, 2, 6), "last": "before_norm"}, "in ascending order|and `layer_ids` are"),
    ],
)
def test_half_of_what_must_be_said_is_refused(tmp_path: Path, said: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        open_data(of_others(tmp_path, version_1()), **said)


@pytest.mark.parametrize("said", [{"layer_ids": (2, 4, 6), "last": "before_norm"}, {"last": "after_norm"}])
def test_what_the_folder_says_is_not_contradicted(tmp_path: Path, said: dict[str, Any]) -> None:
    write(tmp_path / "pt")
    with writing(tmp_path / "store", manifest(planned_shards=1)) as writer:
        writer.write(0, captured())
    for folder in (tmp_path / "pt", tmp_path / "store"):
        with pytest.raises(UsageError, match="holds the layers"):
            open_data(folder, **said)
        assert len(open_data(folder, layer_ids=(2, 3, 6), last="before_norm")) == 5


class Malice:
    """Runs a command where it is unpickled."""

    def __init__(self, touched: Path) -> None:
        self.touched = touched

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.system, (f"touch {self.touched}",)


def test_a_malicious_file_is_refused_and_executes_nothing(tmp_path: Path) -> None:
    touched = tmp_path / "touched"
    of_others(tmp_path, version_1(index=Malice(touched)))
    with pytest.raises(UsageError, match="cannot be read as plain tensors"):
        open_pt(tmp_path).lengths  # noqa: B018
    assert not touched.exists()


def bomb(*shape: int) -> torch.Tensor:
    """Claims many elements, and holds one."""
    return torch.zeros(1, dtype=torch.int64).expand(*shape)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (["a list"], "holds a list"),
        ({key: value for key, value in version_1().items() if key != "loss_mask"}, "has no `loss_mask`"),
        ({key: value for key, value in version_0().items() if key != "target"}, "has no `target`"),
        (version_1(attention_mask=torch.ones(3)), "has `attention_mask`, which no sample of version 1 has"),
        (version_1(loss_mask=torch.ones(4)), "holds 3 tokens, and a loss_mask of 4"),
        (version_1(input_ids=torch.arange(2)), "holds 2 tokens, and a loss_mask of 3"),
        (version_1(hidden_states=[torch.zeros(2, WIDTH)] * 3), "holds 3 tokens, and hidden states of 2"),
        (version_1(hidden_states=[torch.zeros(3, 4), torch.zeros(3, 5)]), r"not alike: \[3, 4\].* and \[3, 5\]"),
        (version_1(hidden_states=[torch.zeros(3, 4, dtype=torch.int64)]), "not .T, H. of bfloat16"),
        (version_1(hidden_states=[]), "not a list of tensors"),
        (version_1(loss_mask=torch.tensor([0, 1, 2])), "values other than 0 and 1"),
        (version_1(loss_mask=torch.tensor([0, 1, float("nan")])), "values other than 0 and 1"),
        (version_1(input_ids=torch.zeros(1, 3, dtype=torch.int64)), r"`input_ids` is \[1, 3\] of int64"),
        (version_1(input_ids=torch.zeros(3)), "of float32, not"),
        (version_1(input_ids=bomb(10**14), loss_mask=bomb(10**14)), "`input_ids` is"),
        (version_1(index="one"), "`index` is 'one'"),
        (version_0(hidden_state=torch.zeros(3, 3 * WIDTH + 1)), r"`hidden_state` is \[3, 13\]"),
        (version_0(hidden_state=torch.zeros(3, WIDTH - 1)), "`hidden_state` is"),
    ],
)
def test_what_is_no_sample_is_refused(tmp_path: Path, data: Any, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        open_pt(of_others(tmp_path, data)).lengths  # noqa: B018


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    file = of_others(tmp_path, version_1()) / "data_0.pt"
    whole = file.read_bytes()
    for content in (b"", b"not a zip", whole[: len(whole) // 2], whole[:-100]):
        file.write_bytes(content)
        with pytest.raises(UsageError, match=r"data_0\.pt cannot be read as plain tensors"):
            open_pt(tmp_path).lengths  # noqa: B018


def test_a_file_of_the_time_before_zips_is_read(tmp_path: Path) -> None:
    torch.save(version_1(), tmp_path / "data_0.pt", _use_new_zipfile_serialization=False)
    assert len(open_pt(tmp_path, layer_ids=(2, 3, 6), last="before_norm")[0]) == 3


def test_two_versions_in_one_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"data_1\.pt is of version 0, and data_0\.pt of 1"):
        open_pt(of_others(tmp_path, version_1(), version_0())).lengths  # noqa: B018


def test_every_file_must_hold_the_layers_that_were_said(tmp_path: Path) -> None:
    short = version_1(hidden_states=version_1()["hidden_states"][:2])
    read = open_pt(of_others(tmp_path, version_1(), short), layer_ids=(2, 3, 6), last="before_norm")
    assert len(read[0]) == 3
    with pytest.raises(UsageError, match=r"data_1\.pt holds 2 layers of width 4 in float32, not 3"):
        read[1]


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (["data_1.pt"], r"lacks data_0\.pt"),
        (["data_0.pt", "data_2.pt"], r"lacks data_1\.pt"),
        (["data_0.pt", "data_01.pt"], r"data_01\.pt is no"),
        (["data_0.pt", "token_freq.pt"], r"token_freq\.pt is no"),
        ([], r"has no manifest\.json"),
    ],
)
def test_a_folder_with_gaps_or_other_files_is_refused(tmp_path: Path, names: list[str], says: str) -> None:
    for name in names:
        torch.save(version_1(), tmp_path / name)
    with pytest.raises(UsageError, match=says):
        open_data(tmp_path)


@pytest.mark.parametrize(
    ("lengths", "says"),
    [
        ({"0": 3, "1": 9}, r"says 9 tokens of data_1\.pt, which has 5"),
        ({"0": 3}, "does not list the samples 0 to 1"),
        ({"0": 3, "1": "five"}, "lists lengths that are no numbers"),
        ([3, 5], "does not list the samples"),
    ],
)
def test_lengths_that_are_not_the_files_are_refused(tmp_path: Path, lengths: Any, says: str) -> None:
    of_others(tmp_path, version_1(3), version_1(5))
    (tmp_path / "sample_lengths.json").write_text(json.dumps(lengths))
    with pytest.raises(UsageError, match=says):
        open_pt(tmp_path, layer_ids=(2, 3, 6), last="before_norm")[1]


@pytest.mark.parametrize("config", ["{", '{"spec_convert": {}}', '{"spec_convert": {"samples": "many"}}'])
def test_a_damaged_data_config_is_refused(tmp_path: Path, config: str) -> None:
    (tmp_path / "data_config.json").write_text(config)
    with pytest.raises(UsageError, match=r"data_config\.json"):
        open_pt(of_others(tmp_path, version_1()))


def test_a_store_is_opened_as_a_store(tmp_path: Path) -> None:
    with writing(tmp_path, manifest(planned_shards=1)) as writer:
        writer.write(0, captured())
    assert isinstance(open_data(tmp_path), Store)
