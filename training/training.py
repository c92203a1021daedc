"""What `spec-convert train` does: data, a draft, what it learns by, and the loop, each made of the settings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from spec_convert.envelope import PROPOSED_TOKENS
from spec_convert.errors import UsageError
from spec_convert.models.contract import Borrowed, Draft
from spec_convert.models.load import shared_tensors
from spec_convert.models.peagle import PEagleDraft
from spec_convert.training.batches.loading import PackedRows
from spec_convert.training.capture.final_norm import final_norm
from spec_convert.training.drafts.building import new_draft
from spec_convert.training.drafts.pretrained import pretrained_draft
from spec_convert.training.drafts.reading import read_shape
from spec_convert.training.drafts.saving import Dtype, state_of, write_draft
from spec_convert.training.drafts.shape import parsed
from spec_convert.training.losses.mix import Mix
from spec_convert.training.objectives.chains import ChainObjective, Stage
from spec_convert.training.objectives.parallel import ParallelObjective
from spec_convert.training.objectives.teacher import Teacher
from spec_convert.training.recipes import RECIPES
from spec_convert.training.settings import TrainSettings
from spec_convert.training.store.community_reading import PtFolder
from spec_convert.training.store.opening import open_data
from spec_convert.training.store.reading import Store
from spec_convert.training.trainer.memory import keep_freed_memory
from spec_convert.training.trainer.plan import Plan
from spec_convert.training.trainer.processes import Processes, joined
from spec_convert.training.trainer.recording import Tracking
from spec_convert.training.trainer.trained import Trained
from spec_convert.training.trainer.training import train as run
from spec_convert.verifier import Verifier, open_verifier

Data = Store | PtFolder


def train(settings: TrainSettings) -> Trained:
    """Train a draft, or go on with what `settings.save_path` holds. Raises UsageError, Refused or Unreadable."""
    verifier = open_verifier(settings.verifier_name_or_path)
    data = _open(settings.data_path, settings, verifier)
    held_out = _open(settings.val_data_path, settings, verifier) if settings.val_data_path else None
    draft = _draft(settings, verifier)
    objective = _objective(settings, draft, verifier)
    plan = _plan(settings)

    def save(folder: Path, tensors: dict[str, Tensor], *, step: int, epoch: int) -> None:
        config: Any = draft.config
        write_draft(
            config, state_of(draft, tensors, with_head=bool(settings.with_head)), folder, verifier=verifier,
            trained={"kind": settings.draft, "step": step, "epoch": epoch, "data": str(settings.data_path)},
            dtype=_dtype(settings, verifier), force=True,
        )  # fmt: skip

    with joined(plan) as processes, _short_of_memory(settings):
        if processes.device.type == "cpu":
            keep_freed_memory()
        return run(
            objective,
            _rows(data, draft, verifier, settings, processes, whole=settings.learn_prompts),
            plan,
            settings.save_path,
            processes=processes,
            save=save,
            request=_request(settings, data, held_out, draft, objective),
            held_out=_rows(held_out, draft, verifier, settings, processes) if held_out is not None else None,
            resume=settings.resume_from_checkpoint,
            track=Tracking(names=settings.logger, log_dir=settings.log_dir, run_name=settings.run_name),
        )


@contextmanager
def _short_of_memory(settings: TrainSettings) -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError as reason:
        raise UsageError(
            f"the GPU has too little memory for this draft and rows of {settings.total_seq_len} tokens: {reason}",
            hint="a lower --total-seq-len needs less, with more --gradient-accumulation-steps for the same step",
        ) from reason


def _open(folder: Path, settings: TrainSettings, verifier: Verifier) -> Data:
    """Raises UsageError when the states are of another model than the verifier."""
    data = open_data(folder, layer_ids=settings.layer_ids, last=settings.last)
    layers = data.layers
    theirs = (verifier.num_hidden_layers, verifier.hidden_size)
    if layers is not None and (layers.num_hidden_layers, layers.hidden_size) != theirs:
        raise UsageError(
            f"{folder} holds states of a model of {layers.num_hidden_layers} layers and width {layers.hidden_size}, "
            f"and {verifier.name} has {theirs[0]} of width {theirs[1]}",
            hint="give the verifier that the data were captured from",
        )
    return data


def _draft(settings: TrainSettings, verifier: Verifier) -> Draft:
    shape = read_shape(settings.draft_config) if settings.draft_config else parsed({}, "the draft")
    shape = shape.updated(num_hidden_layers=settings.num_layers, target_layers=settings.target_layers)
    if settings.from_pretrained:
        return pretrained_draft(settings.from_pretrained, verifier, kind=settings.draft, shape=shape)
    vocabulary = None
    if settings.d2t_path and settings.t2d_path:
        vocabulary = _array(settings.d2t_path), _array(settings.t2d_path)
    # A draft that guesses all its tokens in one pass can be asked for as many as it has learned, and no more.
    proposed = _steps(settings) if settings.draft == "p-eagle" else PROPOSED_TOKENS
    return new_draft(
        settings.draft, verifier, shape, vocabulary=vocabulary, seed=settings.seed, speculative_tokens=proposed
    )


def _steps(settings: TrainSettings) -> int:
    return settings.ttt_steps or RECIPES[settings.draft].steps


def _array(path: Path) -> Tensor:
    try:
        return torch.from_numpy(np.load(path, allow_pickle=False))
    except (OSError, ValueError, TypeError) as error:
        hint = "take d2t.npy and t2d.npy as `spec-convert vocab` writes them"
        raise UsageError(f"{path} is no array of a vocabulary: {error}", hint=hint) from error


def _objective(settings: TrainSettings, draft: Draft, verifier: Verifier) -> ChainObjective:
    recipe = RECIPES[settings.draft]
    stages = [Stage(Mix.parse(phase.loss), until=phase.until, rate=phase.rate) for phase in recipe.phases]
    if settings.loss:
        stages = [Stage(Mix.parse(settings.loss))]
    steps, decay = _steps(settings), settings.ttt_step_loss_decay or recipe.decay
    head = _head(draft, verifier)
    teacher = Teacher(head.bfloat16() if _amp(settings) else head, draft.kept_tokens())
    if isinstance(draft, PEagleDraft):
        return ParallelObjective(draft, teacher, stages, depths=steps, decay=decay)
    return ChainObjective(draft, teacher, stages, steps=steps, decay=decay, detach=recipe.detach, noise=recipe.noise)


def _head(draft: Draft, verifier: Verifier) -> Tensor:
    """The verifier's, which need not be read again where the draft has borrowed it."""
    if isinstance(draft.lm_head, Borrowed):
        return draft.head
    head = shared_tensors(verifier, ("lm_head",), torch.float32).lm_head
    assert head is not None, "a verifier always has a head"
    return head


def _rows(  # noqa: PLR0913  what a row depends on
    data: Data, draft: Draft, verifier: Verifier, settings: TrainSettings, processes: Processes, *, whole: bool = False
) -> PackedRows:
    beyond = (data.lengths - settings.total_seq_len).clamp(min=0)
    if cut := int((beyond > 0).sum()):
        processes.say(
            f"{data.folder}: {cut:,} of {len(data):,} samples are longer than --total-seq-len {settings.total_seq_len};"
            f" their last {int(beyond.sum()):,} of {int(data.lengths.sum()):,} tokens are not read"
        )
    return PackedRows(
        data,
        layer_ids=getattr(draft.config, "eagle_aux_hidden_state_layer_ids", ()),
        normed=final_norm(verifier),
        capacity=settings.total_seq_len,
        seed=settings.seed,
        padded=processes.device.type == "cuda",
        whole=whole,
    )


def _plan(settings: TrainSettings) -> Plan:
    recipe = RECIPES[settings.draft]
    return Plan(
        lr=settings.lr or recipe.lr,
        seed=settings.seed,
        epochs=settings.epochs,
        max_steps=settings.max_steps,
        accumulation=settings.gradient_accumulation_steps,
        optimiser=settings.optimizer,
        clip=recipe.clip,
        schedule=settings.scheduler,
        warmup=settings.warmup_ratio,
        amp="bf16" if _amp(settings) else "none",
        save_every_steps=settings.save_steps,
        device=settings.device,
        parallelism=settings.parallel or "none",
    )


def _amp(settings: TrainSettings) -> bool:
    """Whether products are computed in bfloat16: on a GPU, unless the user says."""
    on_gpu = torch.cuda.is_available() and settings.device != "cpu"
    return on_gpu if settings.amp is None else settings.amp


def _dtype(settings: TrainSettings, verifier: Verifier) -> Dtype:
    """As asked for, else that of the verifier: with it a server computes both."""
    if settings.dtype:
        return settings.dtype
    said = verifier.text_config.get("dtype") or verifier.text_config.get("torch_dtype")
    if said not in ("float32", "bfloat16", "float16"):
        raise UsageError(
            f"the config.json of {verifier.name} says {said!r} for the type of its weights",
            hint="say in which type the draft is saved: --dtype bfloat16",
        )
    kept: Dtype = said
    return kept


def _request(
    settings: TrainSettings, data: Data, held_out: Data | None, draft: Draft, objective: ChainObjective
) -> Mapping[str, Any]:
    """What decides the drafts beside the plan, as JSON: of a run that goes on it must be the same."""
    config: Any = draft.config
    kept = draft.kept_tokens()
    return {
        "kind": settings.draft,
        "verifier": settings.verifier_name_or_path,
        "data": _identity(data),
        "held_out": None if held_out is None else _identity(held_out),
        "total_seq_len": settings.total_seq_len,
        "learn_prompts": settings.learn_prompts,
        "loss": [[str(stage.mix), stage.until, stage.rate] for stage in objective.stages],
        "steps": len(objective.decay),
        "decay": objective.decay.tolist(),
        "from_pretrained": settings.from_pretrained,
        "draft": config.model_dump(mode="json"),
        "vocabulary": None if kept is None else _digest(kept),
    }


def _identity(data: Data) -> dict[str, Any]:
    """What would not be the same if the folder held other samples, or they were taken for other states."""
    layers = data.layers.model_dump(mode="json") if data.layers is not None else None
    shards = [shard.sha256 for shard in data.manifest.shards] if isinstance(data, Store) else []
    return {"samples": len(data), "layers": layers, "lengths": _digest(data.lengths), "shards": shards}


def _digest(numbers: Tensor) -> str:
    return sha256(numbers.cpu().numpy().tobytes()).hexdigest()
