"""Run by the Python that has speculators: loads a unified directory as that library does and prints what was amiss."""

from __future__ import annotations

import json
import sys
from typing import Any


def strict_load(folder: str) -> dict[str, list[str]]:
    from speculators import SpeculatorModel, SpeculatorModelConfig
    from transformers import PreTrainedModel

    config: Any = SpeculatorModelConfig.from_pretrained(folder)
    model_class = SpeculatorModel.registered_model_class_from_config(config)
    # The library's own from_pretrained keeps the loading report to itself.
    _, report = PreTrainedModel.from_pretrained.__func__(model_class, folder, config=config, output_loading_info=True)
    # It fills what the directory leaves to the verifier; whatever nobody filled is NaN.
    complete: Any = SpeculatorModel.from_pretrained(folder)
    unfilled = [
        name for name, value in complete.state_dict().items() if value.is_floating_point() and value.isnan().any()
    ]
    return {
        "missing": sorted(map(str, report["missing_keys"])),
        "unexpected": sorted(map(str, report["unexpected_keys"])),
        "mismatched": sorted(map(str, report["mismatched_keys"])),
        "unfilled": unfilled,
    }


if __name__ == "__main__":
    print(json.dumps(strict_load(sys.argv[1])))
