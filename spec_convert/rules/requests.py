"""Rules about what the user asked for: flags, the verifier, the trial run."""

from __future__ import annotations

from spec_convert.rules.entry import error, warning

RULES = (
    warning(
        "flag-contradicts-tensors",
        "A flag takes away what the file holds and was trained with",
        "The result computes another function than the checkpoint",
        "Leave the flag out unless this is what you want",
    ),
    error(
        "flag-not-heeded",
        "A flag was given that means nothing for this format",
        "It would be recorded and have no effect: the result is not what was asked for",
        "Leave the flag out, or check with `spec-convert detect` that the checkpoint is what you think",
    ),
    error(
        "flag-without-tensors",
        "A flag asks for tensors that the file does not hold",
        "They would have to be made up",
        "Leave the flag out",
    ),
    error(
        "verifier-mismatch",
        "The verifier is not the model that the draft was made for",
        "States of another width, or tokens of another vocabulary, cannot be fed to the draft",
        "Name the model that the draft was trained for with --verifier",
    ),
    error(
        "verifier-unusable",
        "The verifier lacks something that is needed of it",
        "The draft borrows its embedding, its head or the number of its layers",
        "Give the full model, as a folder or Hub id",
    ),
    error(
        "forward-failed",
        "The reference draft could not be run on random input",
        "Config and tensors do not make one function: a server would fail or compute something else",
        "Read the message; `spec-convert validate SOURCE` without --level forward shows what the headers say",
    ),
    error(
        "forward-not-finite",
        "The reference draft gives NaN or infinite logits on random input",
        "No token would ever be accepted",
        "Take another checkpoint of this training run; float16 files may have overflowed when they were cast",
    ),
    error(
        "level-not-reached",
        "A level was not looked at, or only in part, and no error that counts says why",
        "What was not looked at is unknown, and the report would read as clean",
        "Mend the errors that `--ignore`, `--select` or `severity` sets aside, or ask for a level that can be reached",
    ),
)
