"""A draft in the form that engines take, whatever form it comes in: a unified directory, and the verifier beside it.

Drafts in another layout are converted once and kept in a cache folder (`SPEC_CONVERT_CACHE`, otherwise the user's cache
directory), under a name that changes with every file of the source, so that nothing stale is ever served.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from spec_convert.checkpoint import Checkpoint
from spec_convert.conversion import choose_verifier, convert
from spec_convert.detection import Detection, recognise
from spec_convert.errors import Refused, Unreadable, UsageError
from spec_convert.findings import Finding, Level
from spec_convert.formats import Counting, Format, Request
from spec_convert.narration import say
from spec_convert.open import open_checkpoint
from spec_convert.plan import make_plan
from spec_convert.rules import RULES
from spec_convert.tensor import Files
from spec_convert.verifier import Verifier

if TYPE_CHECKING:
    from spec_convert.models.draft import Config

PACKAGE = "spec_convert"
CACHE = "SPEC_CONVERT_CACHE"
WHICH_VERIFIER = "name the model that the draft was trained for: --verifier BASE"
NOT_THERE = ("no-such-source", "hub-not-found")  # rules
FINAL = ("served-as-it-lies", "not-converted")  # rules of what no flag makes convertible
A_FLAG = re.compile(r"--(?!verifier)[a-z]")


@dataclass(frozen=True, kw_only=True)
class Servable:
    """A unified directory (a folder, or an id on the Hub), its config, and the verifier that is to check its tokens."""

    draft: str
    config: Config
    verifier: Verifier

    @property
    def own_verifier(self) -> bool:
        """Whether the verifier is the one that the directory itself names: servers then need no other word."""
        named = self.config.speculators_config.verifier.name_or_path
        return self.verifier.name == named and not self.verifier.pinned

    @property
    def speculative_tokens(self) -> int:
        """How many tokens the directory proposes per verifier pass."""
        return self.config.speculators_config.proposal_methods[0].speculative_tokens


def servable(
    source: str | Path,
    *,
    verifier: str | Path | None = None,
    revision: str | None = None,
    aux_layer_convention: Counting | None = None,
) -> Servable:
    """``source`` as a unified directory: itself when nothing is wrong with it, otherwise what converting it gives.

    ``verifier`` may be left out when the draft names its own; ``aux_layer_convention`` is for a draft that leaves open
    how its layer ids are counted. Raises Unreadable, Refused (the draft is broken, or
    cannot be converted without being told more) or UsageError (no verifier is known, draft and verifier do not fit, or
    engines would take a folder here for a name on the Hub).
    """
    from spec_convert.models.load import unified_config

    checkpoint = open_checkpoint(source, revision=revision)
    with _way_out(checkpoint.source):
        detection = recognise(checkpoint)
        _refuse_own_type(detection)
        base = _verifier(detection, verifier)
        if _is_unified(checkpoint):
            _mention(make_plan(detection, Request(verifier=base)).require_clean().findings)
            draft = f"{source}@{revision}" if revision and "@" not in str(source) else str(source)
        else:
            draft = str(_converted(detection, base, aux_layer_convention))
            checkpoint = open_checkpoint(draft)
    drafted = Servable(draft=draft, config=unified_config(checkpoint), verifier=base)
    _refuse_shadowed(drafted)
    return drafted


def cache_folder() -> Path:
    """Where converted drafts are kept. Safe to delete at any time."""
    if chosen := os.environ.get(CACHE):
        return Path(chosen).expanduser().absolute()
    home = os.environ.get("XDG_CACHE_HOME", "")
    base = Path(home) if os.path.isabs(home) else Path.home() / ".cache"  # the XDG rule for relative paths
    return base / "spec_convert" / "drafts"


def _verifier(detection: Detection, given: str | Path | None) -> Verifier:
    try:
        return choose_verifier(detection, given)
    except Unreadable as problem:
        if given is not None or problem.finding.rule not in NOT_THERE:
            raise
        source = detection.checkpoint.source
        raise UsageError(
            f"{source} names a verifier that is not there: {problem.message}", hint="say where it is: --verifier BASE"
        ) from problem


def _refuse_own_type(detection: Detection) -> None:
    """What a plugin brings is a format, and no model for an engine."""
    if (own := detection.winner.own_type) is not None:
        raise UsageError(
            f"{detection.checkpoint.source}: drafts of type `{own.name}` are converted and validated here, and neither "
            "served nor measured",
            hint=f"{detection.provider} knows the type: ask its documentation what serves it",
        )


def _refuse_shadowed(drafted: Servable) -> None:
    """What is meant on the Hub and has the name of a folder here: engines are told the name, and take the folder."""
    names = [drafted.verifier.name] if drafted.verifier.files.revision is not None else []
    if not os.path.exists(drafted.draft):
        names.append(drafted.draft.removeprefix("hf://").partition("@")[0])
    for name in names:
        if os.path.exists(name):
            raise UsageError(
                f"engines would take the folder {name} here, not {name} on the Hub", hint="run this from another folder"
            )


def _is_unified(checkpoint: Checkpoint) -> bool:
    """Whether a server reads exactly this checkpoint, and every fact of its config as we mean it.

    Directories of other tools may leave facts to a server's guess, and servers load every weight file of a folder.
    """
    from pydantic import ValidationError

    from spec_convert.unified import UNIFIED

    beside = {name for name in checkpoint.files.sizes() if name.endswith(".safetensors")}
    if os.path.isfile(checkpoint.source) or beside != set(checkpoint.weight_files):
        return False
    try:
        UNIFIED.validate_python(checkpoint.config or {})
    except ValidationError:
        return False
    return True


def _converted(detection: Detection, base: Verifier, counted: Counting | None) -> Path:
    """The folder in the cache that holds the conversion of this very checkpoint for this verifier."""
    checkpoint = detection.checkpoint
    folder = cache_folder() / f"{_slug(checkpoint.source)}-{_fingerprint(detection, base, counted)}"
    if not _is_done(folder):
        with _alone(folder):
            if not _is_done(folder):
                _mention(_convert_into(folder, detection, base, counted))
                return folder
    say(f"Using the conversion of {checkpoint.source} in {folder}")
    return folder


def _is_done(folder: Path) -> bool:
    return (folder / "conversion.json").exists()


def _convert_into(folder: Path, detection: Detection, base: Verifier, counted: Counting | None) -> Iterable[Finding]:
    """From the commits that were looked at, even if their branches have moved since."""
    checkpoint = detection.checkpoint
    source, commit = checkpoint.source, checkpoint.files.revision
    if commit is not None:
        source = source.partition("@")[0]
        for name in () if detection.inside_target else checkpoint.weight_files:
            # By the branch that was asked for: so the Hub's cache knows its commit, and the same words work offline.
            checkpoint.files.path(name)
    verifier = base.name if base.files.revision is None else f"hf://{base.name}@{base.files.revision}"
    done = convert(source, folder, verifier=verifier, revision=commit, aux_layer_convention=counted)
    return done.findings


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One process at a time converts this draft. The others wait, and then find it done."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder.with_name(f".{folder.name}.lock"), os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as reason:
        raise UsageError(
            f"cannot keep a converted draft in {folder.parent}: {reason.strerror}",
            hint=f"set {CACHE} to a folder that you may write to",
        ) from reason
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"Waiting for another process that writes {folder}")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _slug(source: str) -> str:
    path = Path(source)
    name = path.resolve().name if path.exists() else source.partition("@")[0].rpartition("/")[2]
    return re.sub(r"[^\w.-]", "-", name, flags=re.ASCII).strip(".")[:100] or "draft"


def _fingerprint(detection: Detection, verifier: Verifier, counted: Counting | None) -> str:
    """Changes whenever the source, the verifier, this package, its code or the plugin that knows the format does."""
    facts = [
        _state(detection.checkpoint.files),
        detection.checkpoint.weight_files,
        [verifier.name, _state(verifier.files)],
        [detection.format, detection.provider, version("spec-convert")],
        _code(detection.winner),
        counted,
    ]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def _code(winner: Format) -> object:
    """A stamp of the code that converts. Of an editable installation the version does not tell that it has changed."""
    package, plugins = (sys.modules.get(name) for name in (PACKAGE, f"{PACKAGE}.plugins"))
    folders = {Path(module.__file__).parent for module in (package, plugins) if module and module.__file__}
    files = {file for folder in folders for file in folder.rglob("*.py")}
    functions = (winner.recognise, winner.features, winner.layout, winner.describe)
    for name in {getattr(function, "__module__", "") for function in functions}:
        if file := getattr(sys.modules.get(name), "__file__", None):
            files.add(Path(file))
    return [[str(file), (state := file.stat()).st_size, state.st_mtime_ns] for file in sorted(files) if file.is_file()]


def _state(files: Files) -> object:
    """A commit pins a source on the Hub by itself."""
    if files.revision is not None:
        return [files.label, files.revision]
    places = {name: files.path(name).resolve() for name in files.sizes()}
    return {name: [str(place), place.stat().st_size, place.stat().st_mtime_ns] for name, place in places.items()}


def _mention(findings: Iterable[Finding]) -> None:
    for finding in findings:
        if finding.level is Level.WARNING:
            say(f"{finding.where}: {finding.message} [{finding.rule}]")


@contextmanager
def _way_out(source: str) -> Iterator[None]:
    """A refusal in terms of somebody who wants to serve the draft, and has no flags for its conversion."""
    try:
        yield
    except Refused as refused:
        if unfit := [finding for finding in refused.findings if finding.rule == "verifier-mismatch"]:
            why = "; ".join(finding.message for finding in unfit)
            raise UsageError(f"{source} does not fit {unfit[0].where}: {why}", hint=WHICH_VERIFIER) from refused
        raise Refused([_with_way_out(finding, source) for finding in refused.findings]) from refused


def _with_way_out(finding: Finding, source: str) -> Finding:
    words = f"{finding.hint} {RULES[finding.rule].do}"
    if finding.level is not Level.ERROR or finding.rule in FINAL or not A_FLAG.search(words):
        return finding
    first = f"`spec-convert convert {source} OUTPUT --verifier BASE` takes such flags: run it, then give OUTPUT here"
    return replace(finding, hint=f"{finding.hint}. {first}" if finding.hint else f"{RULES[finding.rule].do}. {first}")
