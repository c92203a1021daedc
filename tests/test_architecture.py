"""What may not be imported: the command line starts without the heavy libraries, and the hub knows no plugin."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
HEAVY = {"torch", "transformers", "vllm", "datasets", "huggingface_hub", "pydantic", "numpy", "safetensors", "tqdm"}
LOADED = "import json, sys; print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
COMMAND = "from spec_convert.cli import run; assert run(sys.argv[1:]) == 0"


def loaded_after(code: str, *arguments: str) -> set[str]:
    """The top-level packages that a fresh Python holds after running the code."""
    script = f"import sys; {code}; {LOADED}"
    ran = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=True)
    return set(json.loads(ran.stdout.splitlines()[-1]))


def test_importing_the_package_imports_nothing_but_the_standard_library() -> None:
    strangers = loaded_after("import spec_convert") - loaded_after("pass") - set(sys.stdlib_module_names)
    assert strangers == {"spec_convert"}


@pytest.mark.parametrize("arguments", [["--help"], ["convert", "--help"], ["formats"], ["plugins"], ["explain"]])
def test_help_and_catalogues_load_no_heavy_library(arguments: list[str]) -> None:
    assert loaded_after(COMMAND, *arguments) & HEAVY == set()


@pytest.mark.parametrize("command", ["detect", "inspect", "validate"])
@pytest.mark.parametrize("draft", ["eagle", "eagle3"])
def test_looking_at_a_local_folder_loads_no_heavy_library(
    draft: str, command: str, request: pytest.FixtureRequest
) -> None:
    folder = request.getfixturevalue(draft)().write()
    # Whether a config is valid is pydantic's word; a vocabulary map is judged by its values.
    needed = {
        "detect": set(),
        "inspect": set(),
        "validate": {"pydantic", "numpy"} if draft == "eagle3" else {"pydantic"},
    }
    accepted = COMMAND.replace("== 0", "in (0, 1)")  # EAGLE-3 has no layer ids without a verifier
    assert loaded_after(accepted, command, str(folder)) & HEAVY <= needed[command]


def test_a_plain_conversion_needs_neither_torch_nor_the_hub(eagle: Any) -> None:
    draft = eagle()
    arguments = ["convert", str(draft.write()), str(draft.folder.parent / "out"), "--verifier", str(draft.verifier)]
    assert loaded_after(COMMAND, *arguments) & HEAVY <= {"numpy", "pydantic"}


def test_the_hub_imports_neither_plugins_nor_training() -> None:
    inward = []
    for path in sorted((ROOT / "spec_convert").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            inward += [(path.name, n) for n in names if n.startswith(("spec_convert.plugins", "spec_convert.training"))]
    assert inward == []
