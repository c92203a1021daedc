"""Rules about which format a checkpoint is of, and whether its tensors are the ones that the format has."""

from __future__ import annotations

from spec_convert.rules.entry import error, note, warning

RULES = (
    error(
        "unknown-format",
        "No known format fits the checkpoint",
        "Converting it by guess would move tensors to places where they compute something else",
        "Look at `spec-convert inspect SOURCE`; force a format with --format if you know it, or write a plugin",
    ),
    error(
        "two-formats",
        "Two formats claim the checkpoint equally well",
        "They may differ in facts that the file does not hold, such as the convention of its layer ids",
        "Settle it with --format",
    ),
    warning(
        "format-forced",
        "The format was given by hand although it does not fit what was seen",
        "The checks of the format still apply to the tensors, but its reading of the config may be wrong",
        "Leave --format out unless you know better than the detection",
    ),
    note(
        "also-claimed",
        "A format of another plugin claims the checkpoint too, with less evidence",
        "The one with more evidence was taken; if the other is right, tensors and flags mean something else",
        "Nothing, if the format is the right one; otherwise give the other with --format",
    ),
    warning(
        "plugin-failed",
        "A format could not be asked whether the checkpoint is its own",
        "Its plugin raised an error. The other formats were asked, but the right one may be the one that failed",
        "Report it to the plugin's author, or leave it out with SPEC_CONVERT_DISABLE",
    ),
    error(
        "plugin-bug",
        "The plugin that knows the format broke while it looked at the checkpoint",
        "Nothing is known about the checkpoint: it is the plugin that failed, not the draft",
        "Report it to the plugin's author, with the traceback that SPEC_CONVERT_DEBUG=1 shows",
    ),
    error(
        "served-as-it-lies",
        "The layout is one that servers read as it is, and no unified type stands for it",
        "Converted, it would be a directory that no server reads; the checkpoint itself is served already",
        "Serve it as it lies, with the command that the hint gives",
    ),
    error(
        "not-converted",
        "The layout is recognised, and there is nothing that it could be converted to",
        "No unified type computes what this draft computes, and a nearest one would only look like it",
        "Read the hint: it says what serves such a draft, or what to do instead",
    ),
    error(
        "weights-quantised",
        "The draft's weights are quantised",
        "The unified config has no place for scales, and without them the numbers mean something else",
        "Convert the checkpoint as it was before quantisation, or multiply its scales in",
    ),
    error(
        "unclaimed-tensor",
        "A tensor in the file has no place in the format",
        "Leaving it out without a word would compute another function: that is how fusion biases get lost",
        "Detect the right dialect, or teach one with a plugin",
    ),
    error(
        "refused-tensor",
        "A tensor makes this another function than any server computes",
        "The unified format has no place where it would have the same effect",
        "Ask the publisher for a checkpoint of the plain architecture",
    ),
    error(
        "missing-tensor",
        "A tensor that the format requires is not in the file",
        "Servers leave it uninitialised and say nothing: the draft then proposes noise and only the speed is lost",
        "Download the file again; `spec-convert inspect SOURCE` shows what it holds",
    ),
    error(
        "two-spellings",
        "The file holds one tensor under two spellings",
        "Only one of them was trained last, and nothing tells which",
        "Remove one of them",
    ),
    error(
        "wrong-shape",
        "A tensor has a shape that config.json or the other tensors do not allow",
        "The config describes another model, or the file was cut or transposed",
        "Compare `spec-convert inspect SOURCE` with config.json",
    ),
    error(
        "wrong-dtype",
        "A weight is stored in a type that no draft computes with",
        "Quantised weights need scales and a kernel that the unified format does not describe",
        "Convert the checkpoint as it was before quantisation",
    ),
    error(
        "not-finite",
        "A weight is NaN or infinite",
        "One such number spreads to every logit: no token is ever accepted",
        "Take an earlier checkpoint of this training run",
    ),
    error(
        "value-lost",
        "A value of a tensor does not exist in the type that it is to be stored in",
        "It would become infinite, or another number, without a word",
        "For --dtype float16 take bfloat16, which reaches as far as float32; else ask the publisher",
    ),
)
