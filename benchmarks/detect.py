"""Which format every known checkpoint is taken for: a confusion matrix, which should be a diagonal.

    python benchmarks/detect.py [--folder FIXTURES]...

The checkpoints: the example of every installed format, with one layer and with two; what those are converted to; and
those in the true layouts that the tests and the shared folder keep (`expect.json` beside each says what it is), and
FIXTURES of the same kind. Damaged ones have no format to find: all that they must get is an answer, a format or a
refusal with its reason. Prints Markdown, and leaves with 1 when a checkpoint is off the diagonal or without an answer.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from spec_convert import convert, detect
from spec_convert.errors import Refused, SpecConvertError
from spec_convert.registry import registry
from spec_convert.testing import tiny_checkpoint, tiny_verifier
from spec_convert.testing.tiny import example_of

ROOT = Path(__file__).resolve().parent.parent
SHARED = Path(os.environ.get("SPEC_CONVERT_SHARED", ROOT.parent / "shared")) / "fixtures"
SOUND = (ROOT / "tests" / "goldens" / "fixtures", SHARED)
DAMAGED = (ROOT / "tests" / "hostile" / "fixtures", SHARED / "hostile")
NOTHING, SILENT = "no format, with a reason", "no answer"


def examples(folder: Path) -> Iterator[tuple[str, Path]]:
    """What each format's own checkpoints are, and where they lie; then the unified directories made of them."""
    for name, fmt in sorted(registry().formats.items()):
        for layers in (1, 2):
            draft = tiny_checkpoint(name, folder / f"{name}-{layers}", layers=layers)
            yield name, draft
            if fmt.unconverted is None and fmt.own_type is None:
                unified, verifier = folder / f"{name}-{layers}-unified", folder / "verifier"
                convert(draft, unified, verifier=tiny_verifier(verifier), **example_of(name, layers=layers).flags)
                yield "speculators", unified


def fixtures(folder: Path) -> Iterator[tuple[str, Path]]:
    for told in sorted(folder.glob("*/expect.json")):
        yield json.loads(told.read_text())["format"], told.parent / "checkpoint"


def taken_for(checkpoint: Path) -> str:
    try:
        return detect(checkpoint).format
    except Refused as refused:
        return NOTHING if refused.findings else SILENT
    except SpecConvertError as unreadable:
        return NOTHING if unreadable.message else SILENT


def show(found: Counter[tuple[str, str]]) -> None:
    """A row for what checkpoints are, a column for what they were taken for; a dot is none."""
    names = sorted({name for pair in found for name in pair})
    number = {name: index + 1 for index, name in enumerate(names)}
    print(f"| | is | {' | '.join(map(str, number.values()))} |\n|---:|---|{'---:|' * len(names)}")
    for name in names:
        if any((name, other) in found for other in names):
            counts = (str(found[name, other] or "·") for other in names)
            print(f"| {number[name]} | `{name}` | {' | '.join(counts)} |")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, action="append", default=[], help="more fixtures")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        sound = [pair for folder in (*SOUND, *args.folder) for pair in fixtures(folder)]
        found = Counter((name, taken_for(checkpoint)) for name, checkpoint in (*examples(Path(scratch)), *sound))
    show(found)
    right = sum(count for (name, taken), count in found.items() if name == taken)
    damaged = [path for folder in DAMAGED for path in sorted(folder.glob("*/checkpoint"))]
    answered = sum(taken_for(checkpoint) != SILENT for checkpoint in damaged)
    print(f"\n{right} of {found.total()} on the diagonal.")
    print(f"{answered} of {len(damaged)} damaged checkpoints have an answer.")
    return int(right < found.total() or answered < len(damaged))


if __name__ == "__main__":
    sys.exit(main())
