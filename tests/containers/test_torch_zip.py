"""The zip around a torch pickle, and storages that do not hold what the pickle says of them."""

from __future__ import annotations

import json
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import pytest

from spec_convert.open import open_checkpoint

KEY = "0"


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def number(value: int) -> bytes:
    return pickle.dumps(value, 2)[2:-1]


def numbers(values: tuple[Any, ...]) -> bytes:
    return b"(" + b"".join(number(value) for value in values) + b"t"


def tensor_pickle(
    *, count: Any = 4, offset: Any = 0, size: Any = (4,), stride: Any = (1,), kind: str = "FloatStorage", key: str = KEY
) -> bytes:
    """A pickled `{"a": tensor}` in which every number can be a lie."""
    storage = b"(" + text("storage") + b"ctorch\n" + kind.encode() + b"\n" + text(key) + text("cpu") + number(count)
    hooks = b"ccollections\nOrderedDict\n)R"
    view = b"(" + storage + b"tQ" + number(offset) + numbers(size) + numbers(stride) + b"\x89" + hooks + b"t"
    return b"\x80\x02}" + text("a") + b"ctorch._utils\n_rebuild_tensor_v2\n" + view + b"Rs."


@pytest.fixture
def archive(tmp_path: Path) -> Any:
    """Write a torch zip of a data.pkl and one storage."""

    def write(pkl: bytes, *, storage: bytes = bytes(16), compress: int = zipfile.ZIP_STORED, **more: bytes) -> Path:
        path = tmp_path / "pytorch_model.bin"
        with zipfile.ZipFile(path, "w", compress) as opened:
            opened.writestr("archive/data.pkl", pkl)
            opened.writestr(f"archive/data/{KEY}", storage)
            for name, content in more.items():
                opened.writestr(f"archive/{name}", content)
        return path

    return write


def test_a_sound_archive_made_by_hand_is_read(archive: Any) -> None:
    path = archive(tensor_pickle(), storage=struct.pack("<4f", 1, 2, 3, 4), byteorder=b"little")
    assert open_checkpoint(path).read("a").tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("lie", "says"),
    [
        ({"size": (5,)}, "reaches to byte 20 of a storage of 16 bytes"),
        ({"offset": 1}, "reaches to byte 20"),
        ({"offset": 5, "size": (0,)}, "reaches to byte 20"),
        ({"offset": -1}, "offset or a stride"),
        ({"offset": True}, "offset or a stride"),
        ({"stride": (2,)}, "reaches to byte 28"),
        ({"stride": (-1,)}, "offset or a stride"),
        ({"stride": ()}, "one stride for each dimension"),
        ({"size": (-4,)}, "not made of sizes"),
        ({"size": (2**62, 4), "stride": (0, 0)}, "no machine can hold"),
        ({"size": (10**9,), "stride": (0,)}, "more than the whole file"),
        ({"count": 5}, "has 16 bytes instead of 20"),
        ({"count": 10**30}, "no key or no size"),
        ({"count": -1}, "no key or no size"),
        ({"key": "../x"}, "no key or no size"),
        ({"key": "7"}, "storage 7 is missing"),
        ({"kind": "QInt8Storage"}, "torch.QInt8Storage"),
    ],
)
def test_a_tensor_that_leaves_its_storage_is_refused(lie: Any, says: str, archive: Any, refusal: Any) -> None:
    refused = refusal(archive(tensor_pickle(**lie)))
    assert refused.finding.rule == "unreadable-container"
    assert says in refused.message


def test_compressed_entries_are_refused(archive: Any, refusal: Any) -> None:
    assert "compressed" in refusal(archive(tensor_pickle(), compress=zipfile.ZIP_DEFLATED)).message


def test_a_big_endian_file_is_refused(archive: Any, refusal: Any) -> None:
    assert "byte order b'big'" in refusal(archive(tensor_pickle(), byteorder=b"big")).message


def test_an_archive_that_torch_did_not_write_is_refused(tmp_path: Path, refusal: Any) -> None:
    with zipfile.ZipFile(tmp_path / "model.pt", "w") as opened:
        opened.writestr("config.json", json.dumps({}))
    assert "none that torch.save wrote" in refusal(tmp_path).message


def test_two_pickles_in_one_archive_are_refused(tmp_path: Path, refusal: Any) -> None:
    with zipfile.ZipFile(tmp_path / "model.pt", "w") as opened:
        opened.writestr("a/data.pkl", tensor_pickle())
        opened.writestr("b/data.pkl", tensor_pickle())
    assert refusal(tmp_path).finding.rule == "unreadable-container"


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_that_occurs_twice_is_refused(tmp_path: Path, refusal: Any) -> None:
    with zipfile.ZipFile(tmp_path / "model.pt", "w") as opened:
        opened.writestr("a/data.pkl", tensor_pickle())
        opened.writestr("a/data.pkl", tensor_pickle())
    assert "twice" in refusal(tmp_path).message


def test_a_directory_that_points_elsewhere_is_refused(archive: Any, refusal: Any) -> None:
    path = archive(tensor_pickle())
    raw = bytearray(path.read_bytes())
    raw[raw.index(b"PK\x03\x04", 4)] = 0  # the local header of the storage
    path.write_bytes(raw)
    assert "not where the zip directory says" in refusal(path).message


def test_a_whole_folder_of_another_archive_name_is_fine(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "model.pt", "w") as opened:
        opened.writestr("eagle 3/data.pkl", tensor_pickle())
        opened.writestr(f"eagle 3/data/{KEY}", bytes(16))
    assert open_checkpoint(tmp_path).shape("a") == (4,)
