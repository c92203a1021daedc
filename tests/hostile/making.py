"""What damaged checkpoints are made of: a sound one, taken apart, and the table in which every case registers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FIXTURES = Path(__file__).parent / "fixtures"
EAGLE = FIXTURES / "_control_eagle1"
EAGLE3 = FIXTURES / "_control_eagle3"


@dataclass(frozen=True)
class Draft:
    """The folder of one case, with a sound checkpoint to damage; beside it lies what must never be read."""

    folder: Path

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoint"

    @property
    def weights(self) -> Path:
        return self.checkpoint / "model.safetensors"

    @property
    def config(self) -> Path:
        return self.checkpoint / "config.json"

    @property
    def outside(self) -> Path:
        """A folder beside the case's own, with a whole sound checkpoint: what points there seems to work."""
        return self.folder.parent / "outside"

    @property
    def header(self) -> dict[str, Any]:
        return taken_apart(self.weights)[0]

    @property
    def data(self) -> bytes:
        return taken_apart(self.weights)[1]

    def set_header(self, change: Callable[[dict[str, Any]], object]) -> None:
        """Change the header and leave the data as it is."""
        header, data = taken_apart(self.weights)
        change(header)
        self.weights.write_bytes(safetensors(header, data))

    def set_config(self, **changes: Any) -> None:
        config = json.loads(self.config.read_text())
        self.config.write_text(json.dumps(config | changes))

    def shard(self, weight_map: Any = None) -> None:
        """Two sound shards and their index, which may be another one."""
        header, data = taken_apart(self.weights)
        header.pop("__metadata__", None)
        names = sorted(header, key=lambda name: header[name]["data_offsets"])
        where = {}
        for number, part in enumerate((names[:3], names[3:])):
            begin, end = (header[part[place]]["data_offsets"][place] for place in (0, -1))
            moved = {n: header[n] | {"data_offsets": [o - begin for o in header[n]["data_offsets"]]} for n in part}
            (self.checkpoint / f"{number}.safetensors").write_bytes(safetensors(moved, data[begin:end]))
            where |= dict.fromkeys(part, f"{number}.safetensors")
        self.weights.unlink()
        self.index.write_text(json.dumps({"weight_map": where if weight_map is None else weight_map}))

    @property
    def index(self) -> Path:
        return self.checkpoint / "model.safetensors.index.json"


Make = Callable[[Draft], object]


@dataclass(frozen=True)
class Case:
    """``rule``: with what it must be refused by `validate`. None: it may be accepted. A path that ``make`` returns
    is the source in place of the checkpoint's folder. ``few``: it takes long, so only `validate` looks at it."""

    make: Make
    rule: str | None
    base: Path
    few: bool

    def place(self, folder: Path) -> Path:
        """Make the case below ``folder``, and hand back the source to name."""
        draft = Draft(folder)
        shutil.copytree(self.base / "checkpoint", draft.checkpoint)
        source = self.make(draft)
        return source if isinstance(source, Path) else draft.checkpoint


CASES: dict[str, Case] = {}


def case(name: str, rule: str | None, *, base: Path = EAGLE, few: bool = False) -> Callable[[Make], Make]:
    def register(make: Make) -> Make:
        add(name, rule, make, base=base, few=few)
        return make

    return register


def add(name: str, rule: str | None, make: Make, *, base: Path = EAGLE, few: bool = False) -> None:
    assert name not in CASES, name
    CASES[name] = Case(make, rule, base, few)


def taken_apart(path: Path) -> tuple[dict[str, Any], bytes]:
    """The header and the data of a sound safetensors file."""
    raw = path.read_bytes()
    end = 8 + int.from_bytes(raw[:8], "little")
    return json.loads(raw[8:end]), raw[end:]


def safetensors(header: dict[str, Any] | bytes, data: bytes = b"", *, length: int | None = None) -> bytes:
    """A file of any header; ``length``: what it announces in place of the truth."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def sparse(path: Path, size: int, start: bytes = b"") -> None:
    """A file that says it is ``size`` bytes long and takes no more room on the disk than ``start``."""
    with path.open("wb") as stream:
        stream.write(start)
        stream.truncate(size)
