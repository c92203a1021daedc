"""Rules about the draft's own vocabulary: `d2t`, `t2d` and the sizes they must have."""

from __future__ import annotations

from spec_convert.rules.entry import error, note

RULES = (
    error(
        "d2t-missing",
        "The draft's vocabulary is reduced and no table says which tokens it holds",
        "Servers then take the first ones, and nearly every proposal is another token than the one meant",
        "Ask the publisher for d2t, or rebuild it from the frequency list that the training used",
    ),
    error(
        "d2t-inconsistent",
        "d2t fits neither reading: not offsets, not absolute ids",
        "Tokens would be mapped outside the vocabulary, twice, or against t2d",
        "Rebuild it: d2t[i] = token[i] - i, t2d[token] = true",
    ),
    error(
        "d2t-ambiguous",
        "d2t can be meant in two ways, and nothing tells which",
        "Offsets read as absolute ids, or zeros that were never filled in, map every token to another one",
        "Rebuild it with t2d beside it: d2t[i] = token[i] - i, t2d[token] = true",
    ),
    error(
        "vocabulary-map-dtype",
        "d2t or t2d is stored in a type that cannot hold it",
        "A float d2t was rounded: bfloat16 holds whole numbers exactly only up to 256",
        "Rebuild the tables from the list of kept tokens",
    ),
    error(
        "draft-vocabulary-too-large",
        "The draft knows more tokens than its verifier",
        "A draft vocabulary is a selection of the verifier's",
        "Check vocab_size and draft_vocab_size, and that the verifier is the right one",
    ),
    note(
        "d2t-absolute",
        "d2t holds absolute ids",
        "The field's convention is offsets, target = i + d2t[i]: that is what is written",
        "Nothing",
    ),
    note(
        "t2d-rebuilt",
        "t2d is not in the file and was rebuilt from d2t",
        "Some readers ask for it; it holds nothing that d2t does not",
        "Nothing",
    ),
    note(
        "token-map-left-out",
        "The draft comes with a list of frequent tokens, FR-Spec's way to a smaller head",
        "Servers of unified EAGLE-1 have no such map and score the whole vocabulary: slower, accepted no less often",
        "Nothing",
    ),
)
