"""The JSON Schemas that are published under `schemas/`, each generated from the model in the code that it describes."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


def _unified(kind: str) -> Callable[[], Any]:
    def model() -> Any:
        from spec_convert import unified

        models: dict[str, Any] = {
            "dflash": unified.DFlashConfig,
            "dspark": unified.DSparkConfig,
            "eagle": unified.EagleConfig,
            "eagle3": unified.Eagle3Config,
            "eagle_mlp": unified.EagleMlpConfig,
            "mtp": unified.MtpConfig,
            "peagle": unified.PEagleConfig,
        }
        return models[kind]

    return model


def _validation() -> Any:
    from spec_convert.reports.schema import ValidationReport

    return ValidationReport


SCHEMAS: dict[str, Callable[[], Any]] = {
    "dflash": _unified("dflash"),
    "dspark": _unified("dspark"),
    "eagle": _unified("eagle"),
    "eagle3": _unified("eagle3"),
    "eagle_mlp": _unified("eagle_mlp"),
    "mtp": _unified("mtp"),
    "peagle": _unified("peagle"),
    "validation-report": _validation,
}


def schema_of(name: str) -> dict[str, Any]:
    """The JSON Schema of one published document, made from its model."""
    schema: dict[str, Any] = SCHEMAS[name]().model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def write_all(folder: Path) -> None:
    """Write every schema into ``folder``, as `schemas/` keeps them."""
    for name in SCHEMAS:
        (folder / f"{name}.json").write_text(json.dumps(schema_of(name), indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    write_all(Path(sys.argv[1]))
