"""Rules about numbers: matrices that hold nothing, heads cut wrongly, tables against the verifier's, its tokenizer."""

from __future__ import annotations

from spec_convert.rules.entry import error, note, warning

RULES = (
    error(
        "all-zero",
        "A matrix or a norm holds nothing but zeros",
        "It switches off what it is part of: a download with a hole, or a tensor that was made and never loaded",
        "Download the file again and compare its sha256; if it is whole, take another checkpoint of this run",
    ),
    warning(
        "idle-layer",
        "Every matrix of a layer is zero",
        "The layer hands on what it is given. MLP drafts that were exported as EAGLE-1 are so by intention",
        "Nothing for such an export; otherwise take another checkpoint, this layer was never trained",
    ),
    error(
        "constant-matrix",
        "A matrix holds the same number everywhere",
        "No training leaves one: it is a placeholder that was never filled",
        "Take another checkpoint of this run, or ask the publisher",
    ),
    error(
        "head-rows-duplicated",
        "Rows of the head repeat wherever d2t repeats: the head was cut with offsets taken for token ids",
        "Most rows are those of other tokens than d2t says, so most proposals are rejected. The right rows are lost",
        "Cut it again from the full head: lm_head[d2t + arange(len(d2t))]. Without the full head the draft is lost",
    ),
    error(
        "head-of-other-tokens",
        "The head holds the verifier's first rows, and d2t says that they are those of other tokens",
        "Every row scores another token than the one it is mapped to, so nearly every proposal is rejected",
        "Cut it again from the verifier's head: lm_head[d2t + arange(len(d2t))]",
    ),
    warning(
        "head-not-compared",
        "The file holds a head where the draft borrows the verifier's, and the two were not compared",
        "It is left out as the copy that its converters make; if it were another one, the draft would score otherwise",
        "Give --verifier as a folder that holds its weights: then the two are compared",
    ),
    note(
        "embedding-is-the-verifiers",
        "The draft's embedding is a copy of the verifier's",
        "Servers share theirs with drafts that have none: without it the function is the same, but for rounding",
        "Nothing",
    ),
    note(
        "embedding-of-its-own",
        "The draft's embedding differs from the verifier's, of the same size",
        "Most trainers freeze a copy. Some write random numbers by mistake, some train it: the file cannot tell",
        "Nothing, if it was trained; measure the acceptance when in doubt",
    ),
    error(
        "tokenizer-too-large",
        "The verifier's tokenizer knows more tokens than the vocabulary of its config.json",
        "It is another model's: text becomes ids that mean other tokens, or that no row of the embedding stands for",
        "Take tokenizer and config.json from the same repository",
    ),
    note(
        "added-tokens-too-large",
        "Tokens added to the verifier's tokenizer have ids beyond its vocabulary",
        "Models are published so, with tokens for images that a text model never sees; a prompt that holds one fails",
        "Nothing, if no prompt holds these tokens",
    ),
)
