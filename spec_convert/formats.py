"""What a format is: an object with data that plugins return, the built-in ones and third parties' alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from spec_convert.checkpoint import Checkpoint
from spec_convert.evidence import Evidence
from spec_convert.example import Example, Sizes
from spec_convert.findings import Finding
from spec_convert.mapping import Mapped
from spec_convert.rules import found
from spec_convert.shapes import Known
from spec_convert.tensor_map import TensorMap
from spec_convert.verifier import Verifier

if TYPE_CHECKING:
    import torch
    from pydantic import BaseModel

Counting = Literal["boundary", "output"]  # what the number of a layer means: its input, or its output


@dataclass(frozen=True, kw_only=True)
class Request:
    """What the user asked for. None always means: decide by the checkpoint, and refuse when it does not say."""

    verifier: Verifier | None = None
    layernorms: bool | None = None
    fusion_bias: bool | None = None
    norm_before_residual: bool | None = None
    aux_layer_ids: tuple[int, ...] | None = None
    aux_layer_convention: Counting | None = None
    rope_theta: float | None = None
    speculative_tokens: int | None = None
    dtype: str | None = None
    max_shard_size: int | None = None

    @property
    def flags(self) -> dict[str, Any]:
        """The flags that were given, for provenance."""
        names = [name for name in self.__dataclass_fields__ if name != "verifier"]
        return {name: value for name in names if (value := getattr(self, name)) is not None}


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Which of a format's tables this checkpoint follows, and the sizes that its config.json fixes."""

    table: TensorMap
    sizes: Mapping[str, Known]
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Draft:
    """A checkpoint whose tensors have been claimed: what a format makes the unified config of."""

    checkpoint: Checkpoint
    request: Request
    mapped: Mapped


@dataclass(frozen=True, kw_only=True)
class Described:
    """The unified config as plain data, or None when a fact is missing and a finding says which."""

    config: Mapping[str, Any] | None
    findings: tuple[Finding, ...] = ()


VERIFIER_EMBEDDING = "verifier.embed_tokens.weight"
VERIFIER_HEAD = "verifier.lm_head.weight"


@dataclass(frozen=True, kw_only=True)
class UnifiedDraft:
    """A unified draft on its way out: its tensors under unified names, its complete config, and its verifier.

    ``dtype`` is the safetensors code that most of its numbers have, or are to be cast to.
    """

    checkpoint: Checkpoint
    config: Mapping[str, Any]
    verifier: Verifier
    dtype: str


@dataclass(frozen=True, kw_only=True)
class Native:
    """What an export would write: config.json, and the table that makes native tensors of unified ones.

    The table may also take `VERIFIER_EMBEDDING` and `VERIFIER_HEAD`. ``changed`` names, with the reason, the unified
    tensors that will not be read back as they were; ``flags`` are those that make the source read as the export will
    (`{"fusion_bias": False}`). With neither, reading the export back must give the same config and the same bytes.
    """

    table: TensorMap
    config: Mapping[str, Any]
    sizes: Mapping[str, Known]
    findings: tuple[Finding, ...] = ()
    changed: Mapping[str, str] = field(default_factory=dict)
    flags: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Export:
    """How unified drafts of type ``of`` are written in a format's layout, for the ``target`` that reads it natively.

    When ``of`` is not the type that the format produces, the export is the same function as a draft of that type.
    ``write`` raises Refused, or gives error findings, for drafts that the target's code does not compute.
    """

    target: str
    of: str
    write: Callable[[UnifiedDraft], Native]


@dataclass(frozen=True, kw_only=True)
class UnifiedType:
    """A `speculators_model_type` of a plugin's own, beside those of `spec_convert.unified`.

    ``config`` returns the model of its config.json, every field explicit; a function, so that pydantic is imported only
    where a config is checked. ``trial`` runs the draft of such a config and its tensors (by unified name, float32) on
    random input drawn from the generator, and returns the logits, in any shape.
    """

    name: str
    config: Callable[[], type[BaseModel]]
    trial: Callable[[Any, Mapping[str, torch.Tensor], torch.Generator], torch.Tensor]


@dataclass(frozen=True, kw_only=True)
class Unconverted:
    """Why a layout that is recognised is not converted, and what to type instead (SOURCE stands for the checkpoint).

    ``served``: a server computes it as it lies. Otherwise none does, or not from a unified directory.
    """

    because: str
    instead: str
    served: bool = False

    def finding(self, checkpoint: Checkpoint) -> Finding:
        """The error with which such a checkpoint is refused."""
        where, message, hint = checkpoint.source, self.because, self.hint(checkpoint)
        if self.served:
            return found("served-as-it-lies", where=where, message=message, hint=hint)
        return found("not-converted", where=where, message=message, hint=hint)

    def hint(self, checkpoint: Checkpoint) -> str:
        return self.instead.replace("SOURCE", checkpoint.source)

    def features(self, checkpoint: Checkpoint) -> dict[str, Any]:
        """What `detect` shows of it."""
        return {"converted": False, "because": self.because, "instead": self.hint(checkpoint)}


def never(checkpoint: Checkpoint) -> bool:
    return False


ALWAYS_HEEDED = frozenset({"speculative_tokens", "dtype", "max_shard_size"})


@dataclass(frozen=True, kw_only=True)
class Format:
    """A published checkpoint layout.

    ``tables`` lists every table by name (one for most formats); ``layout`` picks the one that a checkpoint follows.
    ``produces`` is the `speculators_model_type` of the result, "" for the one that the checkpoint has already.
    ``flags`` are the fields of `Request` that it heeds beyond those that mean the same for every format
    (`ALWAYS_HEEDED`); a flag that would be ignored is refused.
    ``exports`` are the ways back into this layout.

    ``own_type`` describes what it ``produces`` when that is no type of `spec_convert.unified`. ``is_unified`` says of a
    checkpoint of this format that servers read it as it lies, so that nothing about it may be left to be completed.
    ``unconverted`` says why there is nothing that the checkpoint is converted to; ``layout`` must then refuse with it.
    Such a format leaves a checkpoint to every format that converts it.
    ``story`` is what `spec-convert formats NAME` tells; without one, the docstring of the module that recognises.
    ``inside_target`` says that the draft is a part of a whole model, its own verifier, of which the rest stays there.
    ``example`` makes a tiny checkpoint in these sizes: what `spec_convert.testing` proves the format with.
    """

    name: str
    title: str
    reference: str
    produces: str
    tables: Mapping[str, TensorMap]
    recognise: Callable[[Checkpoint], Evidence]
    features: Callable[[Checkpoint], Mapping[str, Any]]
    layout: Callable[[Checkpoint, Request], Layout]
    describe: Callable[[Draft], Described]
    flags: frozenset[str] = frozenset()
    exports: tuple[Export, ...] = ()
    own_type: UnifiedType | None = None
    is_unified: Callable[[Checkpoint], bool] = never
    unconverted: Unconverted | None = None
    story: str = ""
    inside_target: Callable[[Checkpoint], bool] = never
    example: Callable[[Sizes], Example] | None = None
