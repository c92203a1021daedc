"""Rules about the way back: unified directories written in a native layout."""

from __future__ import annotations

from spec_convert.rules.entry import error, note

RULES = (
    error(
        "export-not-representable",
        "The code that reads the target's layout does not compute this draft",
        "It would leave out or replace what it does not know without a word, and only the speed would tell",
        "Serve the unified directory itself: `spec-convert serve`, or vLLM with spec_convert installed",
    ),
    error(
        "export-residual",
        "Folding the fusion bias into the embedding loses too much",
        "The embedding half of fc is singular or badly conditioned, or the stored dtype is too coarse for the sum",
        "Store the export with --dtype float32; if that is refused too, serve the unified directory itself",
    ),
    error(
        "export-not-read-back",
        "What was written does not read back as what was exported",
        "Whoever converts the export again would get another draft, so it was not given its name",
        "Read the message; if it points at nothing of yours, it is a bug of the export: report it",
    ),
    note(
        "export-changed",
        "The export holds the same function in other tensors",
        "The target has no place for what the message names, or wants what the unified directory shares",
        "Nothing; the message gives the measured difference where there is one",
    ),
    error(
        "stitch-mismatch",
        "The draft does not fit into the place of the target's own",
        "Stitching replaces tensors byte by byte: name, shape, dtype and config must be the same",
        "Stitch into the target that it was extracted from; `convert --dtype` casts the weights of a unified draft",
    ),
)
