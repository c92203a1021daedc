"""What a pipeline is asked for: a TOML file, and what the command line says over it."""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import click

from spec_convert.errors import UsageError
from spec_convert.training.layout import RunLayout
from spec_convert.training.pipeline.options import command_of, options_of
from spec_convert.training.pipeline.stages import STAGES, TABLES, Stage

Said = dict[str, Any]
TEXTS = ("folder", "verifier", "python")
CHOSEN = ("sources", "max_samples")  # which conversations, and how many of them
CONVERSATIONS = ("sources", "conversations")
AMOUNTS = ("max_samples", "target_tokens")  # how much is learned from says nothing of how much is held out
EXAMPLE = "spec-convert pipeline --folder RUN --verifier BASE --source FILE --dump-config prints one"


@dataclass(frozen=True, slots=True)
class Request:
    """``said``: the whole file, with absolute paths."""

    said: Mapping[str, Any]

    @property
    def layout(self) -> RunLayout:
        return RunLayout(Path(self.said["folder"]))

    @property
    def verifier(self) -> str:
        return str(self.said["verifier"])

    def sources(self, *, held_out: bool) -> tuple[str, ...]:
        return tuple((self._table("held_out") if held_out else self.said).get("sources", ()))

    def wants(self, stage: Stage) -> bool:
        return not self.missing(stage)

    def missing(self, stage: Stage) -> list[str]:
        """The tables without which there is no such stage, and that nobody gave."""
        return [table for table in stage.asked_by if table not in self.said]

    def options(self, stage: Stage) -> Said:
        """Those of its table, without the keys that say how it is started."""
        table = self._table(stage.table)
        given = {key: value for key, value in table.items() if key not in _started_by(stage)}
        if stage.held_out:
            given = {key: value for key, value in given.items() if key not in AMOUNTS}
        amount = (self._table("held_out") if stage.held_out else self.said).get("max_samples")
        if amount is not None and any(name.startswith(CONVERSATIONS) for name in stage.reads):
            given = {"max_samples": amount, **given}
        return {**stage.usual, **given}

    def python(self, stage: Stage) -> str | None:
        """The interpreter that the file names; None: ours."""
        found = self._table(stage.table).get("python", self.said.get("python"))
        return None if found is None else str(found)

    def processes(self, stage: Stage) -> int | None:
        """None: as many as there are GPUs."""
        return self._table(stage.table).get("processes") if stage.launched else None

    def _table(self, name: str) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self.said.get(name, {})
        return found


def read_request(file: Path | None, flags: Mapping[str, Any]) -> Request:
    """What ``file`` says, and the ``flags``, which win over it. Raises UsageError.

    Relative paths in the file start from its folder, those of flags from the current one.
    """
    said = _resolved(_read(file), file.parent, where=f"{file}: ") if file else {}
    for key, value in _resolved(dict(flags), Path.cwd(), where="").items():
        said[key] = {**said.get(key, {}), **value} if isinstance(value, dict) else value
    for key, option in (("folder", "--folder"), ("verifier", "--verifier"), ("sources", "--source")):
        if not said.get(key):
            raise UsageError(f"{option} is not given", hint=f"add it, or `{key} = …` to the file of the run")
    return Request(said)


def as_toml(request: Request) -> str:
    """A file of this request, which ``read_request`` takes back, in whatever folder it lies."""
    tables = {key: value for key, value in request.said.items() if isinstance(value, dict)}
    lines = [f"{key} = {_value(value)}" for key, value in request.said.items() if key not in tables]
    for name, table in tables.items():
        lines += ["", f"[{name}]", *(f"{key} = {_value(value)}" for key, value in table.items())]
    return "\n".join(lines) + "\n"


def _value(value: Any) -> str:
    """JSON is TOML for what stands in these files, but for one character, and for what is inside braces."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {_value(inner)}" for key, inner in value.items()) + "}"
    return json.dumps(value, ensure_ascii=False, default=str).replace("\x7f", "\\u007f")


def _read(file: Path) -> Said:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as reason:
        raise UsageError(f"{file} cannot be read: {reason.strerror}", hint="name another file") from reason
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as reason:
        raise UsageError(f"{file} is not TOML: {reason}", hint=EXAMPLE) from reason


def _resolved(said: Said, folder: Path, *, where: str) -> Said:
    """The same with absolute paths, once every key is known to be one."""
    folder = folder.absolute()
    _require_known(said, (*TEXTS, *CHOSEN, "held_out", *TABLES), where)
    for key in TEXTS:
        if key in said:
            said[key] = _path(said[key], folder, f"{where}{key}", must=key != "verifier")
    _resolve_sources(said, folder, where)
    for name in ("held_out", *TABLES):
        if name not in said:
            continue
        if not isinstance(said[name], dict):
            raise UsageError(f"{where}`{name}` is {said[name]!r}", hint=f"it is a table: [{name}]")
        said[name] = dict(said[name])
    if "held_out" in said:
        _require_known(said["held_out"], CHOSEN, f"{where}[held_out]: ")
        _resolve_sources(said["held_out"], folder, f"{where}[held_out]: ")
    for stage in STAGES:
        if stage.table in said and not stage.held_out:
            said[stage.table] = dict(_table(stage, said[stage.table], folder, f"{where}[{stage.table}]: "))
    return said


def _resolve_sources(said: Said, folder: Path, where: str) -> None:
    if "sources" in said:
        each = [said["sources"]] if isinstance(said["sources"], str) else said["sources"]
        if not isinstance(each, list) or not each:
            raise UsageError(f"{where}sources is {each!r}", hint="a list of files, datasets of the Hub or names")
        said["sources"] = [_path(one, folder, f"{where}sources", must=False) for one in each]


def _table(stage: Stage, table: Said, folder: Path, where: str) -> Iterator[tuple[str, Any]]:
    """Each key with its value. An option that takes a path, or names something that is there, is seen from the file."""
    options = options_of(command_of(stage.verb)) if set(table) - _started_by(stage) else {}
    for key, value in table.items():
        must = key == "python" or (key in options and isinstance(options[key].type, click.Path))
        if must or key in stage.files:
            yield key, _path(value, folder, f"{where}{key}", must=must)
        else:
            yield key, value
    processes = table.get("processes", 1) if stage.launched else 1
    if type(processes) is not int or processes < 1:
        raise UsageError(f"{where}processes is {processes!r}", hint="how many processes train together: 1 or more")


def _started_by(stage: Stage) -> set[str]:
    return {"python", "processes"} if stage.launched else {"python"}


def _require_known(said: Said, known: tuple[str, ...], where: str) -> None:
    if unknown := [key for key in said if key not in known]:
        near = get_close_matches(unknown[0].replace("-", "_"), known, n=1, cutoff=0.5)
        meant = f"did you mean `{near[0]}`? " if near else ""
        raise UsageError(f"{where}there is no key `{unknown[0]}`", hint=f"{meant}there are {', '.join(known)}")


def _path(value: object, folder: Path, where: str, *, must: bool) -> str:
    """As seen from ``folder``. What need not be a path is one when it is spelt so, or when it exists there."""
    if not isinstance(value, str) or not value:
        raise UsageError(f"{where} is {value!r}", hint="text in quotes")
    seen = os.path.normpath(folder / os.path.expanduser(value))
    return seen if must or value.startswith((".", "~")) or os.path.exists(seen) else value
