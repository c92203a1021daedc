"""Rules about the draft at work: how often its verifier accepts it, and whether the text stays the verifier's own."""

from __future__ import annotations

from spec_convert.rules.entry import error, note

RULES = (
    error(
        "acceptance-too-low",
        "The mean acceptance length is below what was asked for",
        "The text is still right, but each pass of the verifier gives too few tokens: only the speed is gone, and "
        "nothing else tells",
        "Look at `spec-convert evaluate DRAFT --prompts FILE --report PAGE`: near 1 draft and verifier do not belong "
        "together or the draft is broken; above that, compare with prompts like those that it was trained on",
    ),
    error(
        "not-evaluated",
        "The draft could not be let draft for its verifier",
        "Whether it is accepted often enough is not known",
        "Read the message: most often the verifier lacks its tokenizer or its weights, or the engine could not start",
    ),
    note(
        "acceptance-measured",
        "What the draft reached in answering the prompts",
        "Numbers of the same prompts can be compared from run to run before they fall below the threshold",
        "Nothing",
    ),
    error(
        "not-lossless",
        "A greedy answer with the draft is not the verifier's own text",
        "Speculative decoding must not change the text: what is served would no longer be the verifier",
        "Update the engine, or try the other one with --engine: no draft can change greedy text by itself",
    ),
)
