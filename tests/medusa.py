"""The plugin of `examples/`, installed beside this spec-convert from its folder, for tests that need no wheel."""

from __future__ import annotations

import os
import sys
import tomllib
from pathlib import Path

HOME = Path(__file__).resolve().parents[1] / "examples" / "spec-convert-medusa"


def environment(site: Path) -> dict[str, str]:
    """Variables under which the example is installed, as its own pyproject.toml says. ``site``: an empty folder."""
    project = tomllib.loads((HOME / "pyproject.toml").read_text())["project"]
    about = site / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    [(group, modules)] = project["entry-points"].items()
    lines = [f"{name} = {module}" for name, module in modules.items()]
    (about / "entry_points.txt").write_text("\n".join([f"[{group}]", *lines, ""]))
    return {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "PYTHONPATH": os.pathsep.join([str(site), str(HOME)]),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
