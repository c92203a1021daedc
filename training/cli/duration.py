"""`10m`: a time that an option takes."""

from __future__ import annotations

import re
from typing import Any

import click

SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600}


class Duration(click.ParamType[float]):
    """`90`, `90s`, `10m` or `1h`, as seconds."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        match = re.fullmatch(r"(\d+(?:\.\d+)?)(|s|m|h)", str(value))
        if match is None or float(match[1]) == 0:
            self.fail(f"{value!r} is no time, such as 90s, 10m or 1h", param, ctx)
        return float(match[1]) * SECONDS[match[2]]


# Of verbs that ask servers.
patience_option = click.option(
    "--patience", metavar="TIME", type=Duration(), default="10m", show_default=True,
    help="How long one answer may take, and how long servers may be away.",
)  # fmt: skip
