"""What may be chosen about a draft. What nobody chooses is the verifier's, or the usual."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from spec_convert.errors import UsageError
from spec_convert.unified import Positive
from spec_convert.verifier import Verifier

PositiveNumber = Annotated[float, Field(gt=0)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, strict=True)


class MadeFor(_Strict):
    """The verifier that the choices were made for, as far as they say: any other one is refused."""

    name: str | None = None
    hidden_size: Positive | None = None
    num_hidden_layers: Positive | None = None
    vocab_size: Positive | None = None


class DraftShape(_Strict):
    """Keys are spelt as in a config.json of transformers. None: not chosen."""

    draft: str | None = Field(None, description="The kind of draft that the choices are for")
    verifier: MadeFor = MadeFor()

    model_type: Literal["llama", "qwen3"] | None = None
    hidden_size: Positive | None = None
    intermediate_size: Positive | None = None
    num_hidden_layers: Positive | None = None
    num_attention_heads: Positive | None = None
    num_key_value_heads: Positive | None = None
    head_dim: Positive | None = None
    hidden_act: Literal["silu"] | None = Field(None, description="The draft layers of servers have no other")
    rms_norm_eps: PositiveNumber | None = None
    rope_theta: PositiveNumber | None = Field(None, description="With it the verifier's scaling is left behind too")
    rope_scaling: dict[str, Any] | None = None
    max_position_embeddings: Positive | None = None
    attention_bias: Literal[False] | None = Field(None, description="The draft layers of servers have none")
    mlp_bias: Literal[False] | None = None

    draft_vocab_size: Positive | None = None
    target_layers: tuple[int, ...] | None = Field(None, description="Boundary ids: id k is the state entering layer k")
    norm_before_residual: bool | None = None
    norm_before_fc: bool | None = None
    fc_norm: bool | None = None
    norm_output: bool | None = None

    mlp_layers: Positive | None = Field(None, description="Of a draft that is an MLP")
    mask_token_id: Annotated[int, Field(ge=0)] | None = Field(None, description="Stands for tokens not yet known")

    @field_validator("target_layers", mode="before")
    @classmethod
    def _of_a_list(cls, ids: object) -> object:
        return tuple(ids) if isinstance(ids, list) else ids

    @field_validator("target_layers")
    @classmethod
    def _rising(cls, ids: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if ids is not None and (not ids or ids[0] < 0 or any(a >= b for a, b in pairwise(ids))):
            raise ValueError(f"{list(ids)} are not layers of the verifier in rising order")
        return ids

    @property
    def chosen(self) -> dict[str, Any]:
        """The choices about the draft itself, by name."""
        told = {name: getattr(self, name) for name in type(self).model_fields if name not in ("draft", "verifier")}
        return {name: value for name, value in told.items() if value is not None}

    def updated(self, **choices: Any) -> DraftShape:
        """The same with other choices where they are not None. Raises UsageError for values that cannot be meant."""
        given = {name: value for name, value in choices.items() if value is not None}
        return parsed(self.model_dump(exclude_none=True) | given, "the draft's settings")

    def require_for(self, kind: str, heeded: Iterable[str], verifier: Verifier) -> None:
        """Raises UsageError when the choices were made for another kind of draft or another verifier.

        ``heeded``: the choices that mean something for this kind.
        """
        if self.draft is not None and self.draft != kind:
            raise UsageError(
                f"the draft config is for a draft of kind {self.draft}, not {kind}",
                hint=f"give `--draft {self.draft}`, or another draft config",
            )
        if foreign := sorted(self.chosen.keys() - set(heeded)):
            raise UsageError(f"{', '.join(foreign)} mean nothing for a draft of kind {kind}", hint="leave them out")
        facts = self.verifier.model_dump(exclude={"name"}, exclude_none=True)
        differ = [
            f"{key} {value}, not {theirs}"
            for key, value in facts.items()
            if (theirs := getattr(verifier, key)) != value
        ]
        if differ:
            meant = self.verifier.name or "another verifier"
            raise UsageError(
                f"the draft config was made for {meant}, with {', '.join(differ)} as {verifier.name} has",
                hint="give the verifier that it was made for, or another draft config",
            )


def parsed(given: dict[str, Any], where: str) -> DraftShape:
    """The choices in ``given``. Raises UsageError, with the name that was probably meant, for what is none."""
    try:
        return DraftShape.model_validate(given)
    except ValidationError as error:
        wrong = error.errors()
        unknown = [problem for problem in wrong if problem["type"] == "extra_forbidden"]
        first = (unknown or wrong)[0]
        place = ".".join(map(str, first["loc"]))
        if unknown:
            raise UsageError(f"{where}: there is no choice `{place}`", hint=_meant(place)) from error
        raise UsageError(f"{where}: {place} is {first['input']!r}: {first['msg']}", hint=_about(place)) from error


def _meant(name: str) -> str:
    from difflib import get_close_matches

    known = list(DraftShape.model_fields)
    near = get_close_matches(name, known, n=1)
    return f"did you mean `{near[0]}`?" if near else f"known are {', '.join(known)}"


def _about(name: str) -> str:
    field = DraftShape.model_fields.get(name.partition(".")[0])
    return field.description or "" if field else ""
