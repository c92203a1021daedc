"""What a training run can be refused for before any weight is read: files, packages, processes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from spec_convert.errors import UsageError
from spec_convert.training.settings import TrainSettings, option
from spec_convert.training.store.data_config import read_facts
from spec_convert.training.store.manifest import NAME, Manifest, read_manifest
from spec_convert.training.trainer.trackers import require_trackers


def require_runnable(settings: TrainSettings, environment: Mapping[str, str]) -> None:
    """``environment``: that of this process, in which torchrun says how many there are. Raises UsageError."""
    _require_data(settings)
    for setting in ("d2t_path", "t2d_path"):
        path: Path | None = getattr(settings, setting)
        if path is not None and not path.is_file():
            hint = "make one: spec-convert vocab DATA FOLDER"
            raise UsageError(f"{option(setting)} {path} is no file", hint=hint)
    _require_place(settings)
    _require_processes(settings, environment)
    require_trackers(settings.logger)


def _require_data(settings: TrainSettings) -> None:
    for setting in ("data_path", "val_data_path"):
        folder: Path | None = getattr(settings, setting)
        if folder is None:
            continue
        if not folder.is_dir():
            hint = "give a folder that `spec-convert generate` or `collect` has written"
            raise UsageError(f"{option(setting)} {folder} is no folder", hint=hint)
        foreign = not (folder / NAME).exists() and any(folder.glob("data_*.pt"))
        manifest = None if foreign else read_manifest(folder)
        if manifest is not None and manifest.layers is None:
            hint = f"capture them: spec-convert generate {folder} STATES"
            raise UsageError(f"{option(setting)} {folder} holds tokens without the verifier's states", hint=hint)
        if foreign and settings.layer_ids is None and read_facts(folder) is None:
            raise UsageError(
                f"{option(setting)} {folder} does not say which layers its states are of",
                hint="say it in boundary ids, such as --layer-ids 2,16,29,32 --last-state before-norm",
            )
        if settings.data_format_version is not None:
            _require_version(folder, manifest, settings.data_format_version)
    if settings.val_data_path == settings.data_path:
        raise UsageError("--val-data-path is --data-path: nothing is held out", hint="give data of other conversations")


def _require_version(folder: Path, manifest: Manifest | None, version: int) -> None:
    if manifest is not None and manifest.layout == "safetensors":
        what = f"--data-format-version is of `data_{{i}}.pt` files, and {folder} holds a store"
        raise UsageError(what, hint="leave it out")
    from spec_convert.training.store.community_file import read_pt  # loads torch

    if (found := read_pt(min(folder.glob("data_*.pt"))).version) != version:
        raise UsageError(
            f"{folder} holds data of version {found}, not {version}",
            hint=f"--data-format-version {found}, or leave it out: the files say it themselves",
        )


def _require_place(settings: TrainSettings) -> None:
    place = settings.save_path
    if place.exists() and not place.is_dir():
        raise UsageError(f"--save-path {place} is not a folder", hint="give one, or a new name")
    for setting in ("data_path", "val_data_path"):
        data: Path | None = getattr(settings, setting)
        if data is not None and place.resolve().is_relative_to(data.resolve()):
            raise UsageError(f"--save-path {place} lies in {option(setting)}", hint="give a folder of its own")


def _require_processes(settings: TrainSettings, environment: Mapping[str, str]) -> None:
    if settings.parallel is None and int(environment.get("WORLD_SIZE", "1")) > 1:
        raise UsageError(
            "torchrun has started several processes, and nothing says how they share the work",
            hint="add --parallel ddp, or fsdp when the draft does not fit into one GPU",
        )
    if settings.parallel is not None and "WORLD_SIZE" not in environment:
        raise UsageError(
            f"--parallel {settings.parallel} is for several processes, and this is one",
            hint="start them: torchrun --nproc-per-node N -m spec_convert train …; or leave it out",
        )
