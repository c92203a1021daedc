"""Inside a checkout Python runs the checkout's code, whatever is installed: so the two must be of one version."""

from __future__ import annotations

from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
IS_CHECKOUT = (ROOT / "pyproject.toml").is_file() and (ROOT / "plugins").is_dir()


@cache
def require_installed() -> None:
    """Raise UsageError when this is a checkout and what is installed has another version or other plugins.

    Version and plugins are read from the installation, the code comes from here: a mixture would be neither.
    """
    if not IS_CHECKOUT:
        return
    import tomllib
    from importlib.metadata import PackageNotFoundError, distribution

    from spec_convert.errors import UsageError

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    try:
        installed = distribution(project["name"])
        plugins = {point.name: point.value for point in installed.entry_points if point.group == "spec_convert"}
        same = (installed.version, plugins) == (project["version"], project["entry-points"]["spec_convert"])
        what = f"spec-convert {installed.version} is installed, with another version or other plugins than this code"
    except PackageNotFoundError:
        same, what = False, "spec-convert is not installed in this Python"
    if not same:
        hint = f"install it with `pip install -e {ROOT}`, or leave this folder to use what is installed"
        raise UsageError(f"the code in {ROOT} cannot run: {what}", hint=hint)
