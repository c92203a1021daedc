"""A tiny checkpoint of one format on disk with its verifier: what a contract test changes and looks at again."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spec_convert.detection import recognise
from spec_convert.errors import Refused, Unreadable
from spec_convert.example import Example
from spec_convert.findings import Finding, Level
from spec_convert.formats import Format, Layout, Request
from spec_convert.mapping import Step
from spec_convert.open import open_checkpoint
from spec_convert.operations import Header
from spec_convert.plan import Plan, make_plan
from spec_convert.registry import registry
from spec_convert.tensor import Tensor
from spec_convert.testing.tiny import example_of, tiny_verifier, write_example
from spec_convert.verifier import open_verifier

if TYPE_CHECKING:
    import numpy as np


class Bench:
    """``folder`` holds the example, as it is or as a test changed it; ``verifier`` is the model that it fits."""

    def __init__(self, format: str, root: Path, **sizes: int) -> None:  # noqa: A002
        self.fmt: Format = registry()[format]
        self.example = example_of(format, **sizes)
        self.folder = root / "checkpoint"
        self.verifier = tiny_verifier(root / "verifier", **sizes)
        self.request = Request(verifier=open_verifier(self.verifier), **self.example.flags)

    def write(self, example: Example | None = None, *, dtype: str = "F32") -> Path:
        return write_example(example or self.example, self.folder, dtype=dtype)

    def plan(self, example: Example | None = None, *, dtype: str = "F32") -> Plan:
        """What converting it would do. Raises Refused or Unreadable like `convert`."""
        return make_plan(recognise(open_checkpoint(self.write(example, dtype=dtype))), self.request)

    def look(self, example: Example) -> tuple[Plan | None, list[Finding]]:
        """The plan, unless there is none, and everything that there is to say. Lets every other exception out."""
        try:
            plan = self.plan(example)
        except (Refused, Unreadable) as refusal:
            return None, list(refusal.findings)
        return plan, list(plan.findings)

    def layout(self, plan: Plan) -> Layout:
        return self.fmt.layout(plan.detection.checkpoint, self.request)


def bad(findings: Sequence[Finding], but: Collection[str] = ()) -> list[str]:
    """The errors and warnings among them, in words, without those of the rules in ``but``."""
    return [f"{f.rule}: {f.where}: {f.message}" for f in findings if f.level is not Level.NOTE and f.rule not in but]


def what(plan: Plan) -> dict[str, Any]:
    """What a plan does, without what it says."""
    return {"tensors": plan.tensors_json(), "config": plan.config}


def headers(tensors: Mapping[str, np.ndarray], dtypes: Mapping[str, str]) -> dict[str, Tensor]:
    """Arrays as a table sees the tensors of a file."""
    return {
        name: Tensor(name=name, dtype=dtypes[name], shape=array.shape, file="", start=0)
        for name, array in tensors.items()
    }


def run(steps: Sequence[Step], arrays: Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The output of these steps: values and dtypes by name."""
    values: dict[str, np.ndarray] = {}
    made: dict[str, Header] = {}
    for step in steps:
        outputs = step.run([arrays[name] for name in step.sources])
        values |= dict(zip((name for name, _ in step.targets), outputs, strict=True))
        made |= dict(step.targets)
    return values, {name: header.dtype for name, header in made.items()}
