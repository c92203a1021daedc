"""The verb `doctor`: why the tokens of a draft are not accepted."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spec_convert.conversion import choose_verifier
from spec_convert.detection import recognise
from spec_convert.doctor.counting import RULE, counting, flags, only_open
from spec_convert.errors import Refused, UsageError
from spec_convert.evaluation.memory import enough_memory
from spec_convert.evaluation.prompt import Prompt
from spec_convert.evaluation.prompts import read_prompts
from spec_convert.findings import Checked, Finding, errors
from spec_convert.formats import Counting
from spec_convert.narration import say
from spec_convert.open import open_checkpoint
from spec_convert.servable import WHICH_VERIFIER, Servable, servable
from spec_convert.validation.validation import validate
from spec_convert.verifier import Verifier

if TYPE_CHECKING:
    import torch

    from spec_convert.doctor.diagnosis import Diagnosis
    from spec_convert.doctor.heard import Heard
    from spec_convert.doctor.hypothesis import Base
    from spec_convert.doctor.parts import Kind, Parts
    from spec_convert.evaluation.verifier_model import StateId

PROMPTS = Path(__file__).with_name("prompts.txt")


@dataclass(frozen=True, slots=True, kw_only=True)
class Examination:
    """``findings``: what `validate` says of the draft at level `tensors`. ``ids_open``: nothing but measuring tells how
    its layer ids are counted; they were taken for boundary ids.
    """

    source: str
    draft: str  # the unified directory that was examined: the source, or what it was converted to
    format: str
    verifier: str
    answers: int
    rows: int
    diagnosis: Diagnosis
    findings: tuple[Finding, ...]
    ids_open: bool

    @property
    def clean(self) -> bool:
        return self.diagnosis.verdict == "sound" and not errors(self.findings)

    @property
    def wrong(self) -> list[Finding]:
        """Errors in the files. Of layer ids that they leave open, measuring decides."""
        return [one for one in errors(self.findings) if not (self.ids_open and one.rule == RULE)]

    @property
    def counting(self) -> Counting | None:
        """How layer ids that were left open are counted. None: they were not, or these rows do not tell."""
        return counting(self.diagnosis) if self.ids_open else None

    @property
    def command(self) -> str | None:
        """What makes the draft right, where converting does."""
        fixes = [flags(cause, self.counting) for cause in self.diagnosis.causes]
        if self.counting == "boundary":
            fixes.append(("--aux-layer-convention", "boundary"))
        if not any(some is not None for some in fixes):
            return None
        given = [flag for some in fixes for flag in some or ()]
        return shlex.join(["spec-convert", "convert", self.source, "OUTPUT", "--verifier", self.verifier, *given])


def examine(  # noqa: PLR0913  (each is a choice of the user's)
    source: str | Path,
    *,
    verifier: str | Path | None = None,
    prompts: str | Path | Sequence[Prompt] | None = None,
    limit: int | None = None,
    max_tokens: int = 64,
    dtype: str = "float32",
) -> Examination:
    """Find out why the draft at ``source``, in any layout, is not accepted by its verifier.

    ``verifier`` may be left out when the draft names its own. It answers the first turn of each of the ``prompts`` (a
    file, a dataset or the project's own; the first ``limit``) in ``max_tokens`` at most, computing in ``dtype``.
    Nothing is mended: a unified directory is examined as it lies. Raises Unreadable, Refused or UsageError.
    """
    if prompts is None or isinstance(prompts, str | Path):
        prompts = read_prompts(prompts or PROMPTS, limit=limit)
    checked = validate(source, verifier=verifier, level="tensors").checked[0]
    draft, config, base, ids_open = _opened(source, verifier, checked)
    from spec_convert.doctor.diagnosis import diagnose

    with enough_memory("half as much is needed with --dtype bfloat16"):
        parts = parts_of(draft, config, base)
        wanted = states_for(config, base)
        heard = listen(wanted, base, prompts[:limit], max_tokens=max_tokens, dtype=dtype)
        diagnosis = diagnose(parts, base_of(base, heard), heard)
    return Examination(
        source=str(source), draft=draft, format=checked.format or "", verifier=base.name, answers=len(heard.texts),
        rows=heard.rows, diagnosis=diagnosis, findings=checked.findings, ids_open=ids_open,
    )  # fmt: skip


def _opened(source: str | Path, verifier: str | Path | None, checked: Checked) -> tuple[str, Kind, Verifier, bool]:
    """The unified directory: as it lies, with whatever is wrong with it; else what converting the source gives, and
    whether its layer ids were left open.
    """
    from spec_convert.models.load import unified_config

    if unfit := [finding.message for finding in checked.findings if finding.rule == "verifier-mismatch"]:
        raise UsageError(f"{source} does not fit its verifier: {'; '.join(unfit)}", hint=WHICH_VERIFIER)
    if not checked.unified:
        drafted, ids_open = _converted(source, verifier)
        return drafted.draft, _known(drafted.config, source), drafted.verifier, ids_open
    checkpoint = open_checkpoint(source)
    config = unified_config(checkpoint)
    return str(source), _known(config, source), choose_verifier(recognise(checkpoint), verifier), False


def _converted(source: str | Path, verifier: str | Path | None) -> tuple[Servable, bool]:
    """Also of a draft that leaves open what its layer ids count: taken for those of inputs, which is then judged."""
    try:
        return servable(source, verifier=verifier), False
    except Refused as refused:
        if not only_open(errors(refused.findings)):
            raise
    say(f"Nothing tells how {source} counts its layer ids: they are tried as inputs of layers and as outputs")
    return servable(source, verifier=verifier, aux_layer_convention="boundary"), True


def _known(config: Any, source: str | Path) -> Kind:
    from spec_convert.unified import Eagle3Config, EagleConfig

    if not isinstance(config, Eagle3Config | EagleConfig):
        raise UsageError(
            f"{source}: there are no hypotheses for drafts of type `{config.speculators_model_type}`",
            hint="`spec-convert validate --level tensors` looks at its weights, `spec-convert evaluate` measures it",
        )
    return config


def parts_of(draft: str | Path, config: Kind, base: Verifier) -> Parts:
    """What the unified directory ``draft`` is made of, computing in the type that its config names."""
    import torch

    from spec_convert.doctor.parts import TABLES, Parts
    from spec_convert.evaluation.verifier_model import wanted_states
    from spec_convert.models.load import read_torch, shared_tensors

    checkpoint = open_checkpoint(draft)
    return Parts(
        config=config,
        tensors={name: read_torch(checkpoint, name, torch.float32) for name in checkpoint},
        tables=shared_tensors(base, TABLES, torch.float32),
        fed=wanted_states(config),
        dtype=_float_type(config, draft),
    )


def _float_type(config: Kind, draft: str | Path) -> torch.dtype:
    import torch

    kind = getattr(torch, config.torch_dtype, None)
    if not isinstance(kind, torch.dtype) or not kind.is_floating_point:
        raise UsageError(
            f"{draft}: config.json says {config.torch_dtype!r} for `torch_dtype`, which is no type of numbers",
            hint="float32, float16 or bfloat16, as the weights are",
        )
    return kind


def base_of(base: Verifier, heard: Heard) -> Base:
    from spec_convert.doctor.hypothesis import Base

    layers = base.num_hidden_layers
    return Base(layers=layers, config=base.text_config, norm=heard.norm(layers))


def states_for(config: Kind, base: Verifier) -> list[StateId]:
    """Every state of the verifier that some hypothesis about a draft of ``config`` wants."""
    from spec_convert.doctor.of_states import other_ids
    from spec_convert.evaluation.verifier_model import wanted_states

    layers = base.num_hidden_layers
    others = {state for ids in other_ids(config, layers).values() for state in ids}
    return list(dict.fromkeys([*wanted_states(config), *sorted(others), layers, "final"]))


def listen(
    wanted: Sequence[StateId], base: Verifier, prompts: Sequence[Prompt], *, max_tokens: int, dtype: str
) -> Heard:
    """The verifier's answers, with its ``wanted`` states."""
    import torch

    from spec_convert.doctor.heard import hear
    from spec_convert.evaluation.chat import open_chat
    from spec_convert.evaluation.verifier_model import VerifierModel, load_model

    revision = base.files.revision
    chat = open_chat(base.name, revision=revision)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = load_model(base.name, revision=revision, dtype=dtype, device=device)
    say(f"The verifier answers {len(prompts)} prompts")
    return hear(VerifierModel(model, wanted), wanted, chat, prompts, max_tokens=max_tokens)
