"""Facts that a config must hold: asked for all at once, refused with all that is missing, never defaulted."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from spec_convert.checkpoint import Checkpoint
from spec_convert.errors import Refused
from spec_convert.findings import Finding
from spec_convert.rules import found

LARGEST = sys.float_info.max  # JSON numbers know no bound: 1e999 is read as infinity
NO_CONFIG_HINT = "put the config.json that was published with these weights beside them"


@dataclass(frozen=True)
class Facts:
    """A config, or a part of it, and how messages call it (``config.json: transformer_layer_config``)."""

    values: Mapping[str, Any]
    where: str = "config.json"

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> Facts:
        """The top level of config.json. Raises Refused when there is none."""
        if checkpoint.config is None:
            missing = found(
                "config-missing", where=checkpoint.source, message="there is no config.json", hint=NO_CONFIG_HINT
            )
            raise Refused([missing])
        return cls(checkpoint.config)

    def part(self, key: str) -> Facts:
        """A nested object. Raises Refused when it is absent or no object."""
        self.require({key: dict})
        return Facts(self.values[key], f"{self.where}: {key}")

    def has(self, key: str) -> bool:
        """Whether the key is there and not null: published configs write null for "not given"."""
        return self.values.get(key) is not None

    def get(self, key: str) -> Any:
        return self.values.get(key)

    def require(self, wanted: Mapping[str, type]) -> dict[str, Any]:
        """The values of all keys in ``wanted``. Raises Refused with one finding for each that is absent or mistyped."""
        problems = [problem for key, kind in wanted.items() if (problem := self._problem(key, kind))]
        if problems:
            raise Refused(problems)
        return {key: kind(self.values[key]) if kind is float else self.values[key] for key, kind in wanted.items()}

    def first(self, spellings: Sequence[str], kind: type) -> Any:
        """The value of the first of several spellings of one key that is there; all absent is refused."""
        key = next((spelling for spelling in spellings if self.has(spelling)), spellings[0])
        return self.require({key: kind})[key]

    def _problem(self, key: str, kind: type) -> Finding | None:
        value = self.values.get(key)
        if value is None:
            return found(
                "config-key-missing", where=self.where, message=f"has no `{key}`, and nothing else tells it",
                hint=f"add `{key}` as the trainer had it; it cannot be guessed",
            )  # fmt: skip
        accepted = (int, float) if kind is float else kind
        if not isinstance(value, accepted) or (isinstance(value, bool) and kind is not bool):
            return found("config-key-invalid", where=self.where, message=f"`{key}` is {value!r}, not {_KINDS[kind]}")
        if isinstance(value, int | float) and kind is not bool and not 0 < value <= LARGEST:
            message = f"`{key}` is {value!r}, not above zero and finite"
            return found("config-key-invalid", where=self.where, message=message)
        return None


_KINDS = {
    int: "a whole number",
    float: "a number",
    str: "text",
    bool: "true or false",
    dict: "an object",
    list: "a list",
}
