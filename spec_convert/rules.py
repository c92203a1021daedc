"""The catalogue: every finding that spec_convert can report, with its level, why it matters and what to do about it."""

from __future__ import annotations

from spec_convert.findings import Finding, Level, Rule


def found(rule: str, *, where: str, message: str, hint: str = "") -> Finding:
    """A finding with the level that the catalogue gives its rule. The rule must be in the catalogue."""
    entry = RULES[rule]
    return Finding(rule=entry.code, level=entry.level, where=where, message=message, hint=hint)


def _error(code: str, says: str, why: str, do: str) -> Rule:
    return Rule(code=code, level=Level.ERROR, says=says, why=why, do=do)


def _warning(code: str, says: str, why: str, do: str) -> Rule:
    return Rule(code=code, level=Level.WARNING, says=says, why=why, do=do)


def _note(code: str, says: str, why: str, do: str) -> Rule:
    return Rule(code=code, level=Level.NOTE, says=says, why=why, do=do)


_SOURCES = (
    _error(
        "no-such-source",
        "The source is no file or folder here and no id on the Hub",
        "Nothing can be read from it",
        "Check the spelling. A Hub id looks like org/name or org/name@revision",
    ),
    _error(
        "no-weights",
        "The source holds no weight file",
        "There is nothing to convert: often only config.json was downloaded, or the folder above was given",
        "Download the weights too, or name the folder that holds model.safetensors or pytorch_model.bin",
    ),
    _error(
        "ambiguous-weights",
        "The source holds several weight files and nothing says which one counts",
        "Taking the wrong one would convert another checkpoint without a word",
        "Name the file itself instead of its folder",
    ),
    _error(
        "git-lfs-pointer",
        "The weight file is a git-lfs pointer",
        "A repository cloned without git-lfs holds small text files in place of the weights",
        "Run `git lfs pull` in the clone, or give the Hub id instead",
    ),
    _error(
        "unreadable-container",
        "A weight file is damaged or of a kind that is not read here",
        "A header that contradicts its file would be read as other weights than were saved",
        "Download the file again and compare its sha256; convert other kinds to safetensors first",
    ),
    _error(
        "unsafe-pickle",
        "A pickled weight file wants to call something that loading weights does not need",
        "Unpickling it the usual way would run that code on this machine. Here nothing of it was run",
        "Do not load this file with torch.load. Ask the publisher for safetensors",
    ),
    _error(
        "index-mismatch",
        "The index of a sharded checkpoint does not fit its shards",
        "Tensors would be missing, or read from a file outside the checkpoint",
        "Download the checkpoint again, index and shards together",
    ),
    _error(
        "config-unreadable",
        "config.json is not a JSON object",
        "The number of heads and the rope base stand only there",
        "Take config.json from the publisher's repository again",
    ),
    _error(
        "hub-not-found",
        "The Hub has no such repository, file or revision, or it is private",
        "Nothing can be read from it. The Hub does not tell a private repository from one that does not exist",
        "Check the spelling; for a private repository log in with `hf auth login` or set HF_TOKEN",
    ),
    _error(
        "hub-gated",
        "The repository is gated and access was not granted",
        "Its owner asks for conditions to be accepted before anything but the model card can be read",
        "Accept the conditions on the repository's page, then log in with `hf auth login` or set HF_TOKEN",
    ),
    _error(
        "hub-unauthorised",
        "The Hub refused the token, or the token lacks a permission",
        "The request was understood and denied: trying again does not help",
        "Check the token with `hf auth whoami`; pushing needs one with write access",
    ),
    _error(
        "hub-no-network",
        "The Hub cannot be reached",
        "Headers of a Hub id are read over the network, and what is needed is not in the local cache",
        "Check the connection, HF_ENDPOINT and HF_HUB_OFFLINE, or pass a local folder",
    ),
    _error(
        "hub-transfer",
        "The Hub answered, but not with what was asked for",
        "A truncated or whole answer in place of a byte range would be read as other weights",
        "Try again; if it persists, look at the proxy in between or at the Hub's status page",
    ),
)

_LAYOUTS = (
    _error(
        "unknown-format",
        "No known format fits the checkpoint",
        "Converting it by guess would move tensors to places where they compute something else",
        "Look at `spec-convert inspect SOURCE`; force a format with --format if you know it, or write a plugin",
    ),
    _error(
        "two-formats",
        "Two formats claim the checkpoint equally well",
        "They may differ in facts that the file does not hold, such as the convention of its layer ids",
        "Settle it with --format",
    ),
    _warning(
        "format-forced",
        "The format was given by hand although it does not fit what was seen",
        "The checks of the format still apply to the tensors, but its reading of the config may be wrong",
        "Leave --format out unless you know better than the detection",
    ),
    _warning(
        "plugin-failed",
        "A format could not be asked whether the checkpoint is its own",
        "Its plugin raised an error. The other formats were asked, but the right one may be the one that failed",
        "Report it to the plugin's author, or leave it out with SPEC_CONVERT_DISABLE",
    ),
    _error(
        "unclaimed-tensor",
        "A tensor in the file has no place in the format",
        "Leaving it out without a word would compute another function: that is how fusion biases get lost",
        "Detect the right dialect, or teach one with a plugin",
    ),
    _error(
        "refused-tensor",
        "A tensor makes this another function than any server computes",
        "The unified format has no place where it would have the same effect",
        "Ask the publisher for a checkpoint of the plain architecture",
    ),
    _error(
        "missing-tensor",
        "A tensor that the format requires is not in the file",
        "Servers leave it uninitialised and say nothing: the draft then proposes noise and only the speed is lost",
        "Download the file again; `spec-convert inspect SOURCE` shows what it holds",
    ),
    _error(
        "two-spellings",
        "The file holds one tensor under two spellings",
        "Only one of them was trained last, and nothing tells which",
        "Remove one of them",
    ),
    _error(
        "wrong-shape",
        "A tensor has a shape that config.json or the other tensors do not allow",
        "The config describes another model, or the file was cut or transposed",
        "Compare `spec-convert inspect SOURCE` with config.json",
    ),
    _error(
        "wrong-dtype",
        "A weight is stored in a type that no draft computes with",
        "Quantised weights need scales and a kernel that the unified format does not describe",
        "Convert the checkpoint as it was before quantisation",
    ),
    _error(
        "not-finite",
        "A weight is NaN or infinite",
        "One such number spreads to every logit: no token is ever accepted",
        "Take an earlier checkpoint of this training run",
    ),
    _error(
        "value-lost",
        "A value of a tensor does not exist in the type that it is to be stored in",
        "It would become infinite, or another number, without a word",
        "For --dtype float16 take bfloat16, which reaches as far as float32; else ask the publisher",
    ),
)

_CONFIGS = (
    _error(
        "config-missing",
        "There is no config.json beside the weights",
        "Heads, norm epsilon and rope base cannot be seen in the tensors",
        "Put the config.json that was published with these weights beside them",
    ),
    _error(
        "config-key-missing",
        "config.json lacks a fact that nothing else tells",
        "Any default would be a guess, and a wrong guess costs the acceptance without an error",
        "Add the key as the trainer had it",
    ),
    _error(
        "config-key-invalid",
        "A key of config.json has a value that cannot be meant",
        "The fact is needed and cannot be read",
        "Correct the key as the trainer had it",
    ),
    _error(
        "config-invalid",
        "The unified config would not be valid",
        "Servers would refuse it or read it another way",
        "Correct what the message names, in config.json or by flag",
    ),
    _warning(
        "layer-count-differs",
        "config.json counts other layers than the file holds",
        "vLLM leaves layers that are only in the config uninitialised. The count of the file is written",
        "Nothing, if the file is complete",
    ),
    _warning(
        "head-dim-differs",
        "config.json gives another head size than the tensors have",
        "The size of the tensors is written",
        "Nothing, if the number of heads is right",
    ),
    _note(
        "dtype-differs",
        "config.json names another dtype than the tensors have",
        "Published configs often keep the verifier's dtype. That of the tensors is written",
        "Nothing; `--dtype` casts",
    ),
    _note(
        "rope-theta-absent",
        "config.json has no rope_theta",
        "Implementations then use 10000, and the draft was trained so, whatever its verifier uses: 10000 is written",
        "Nothing, unless you know that the trainer used another base: then give --rope-theta",
    ),
    _error(
        "norm-before-residual-unknown",
        "Nothing tells whether the residual is taken before or after hidden_norm",
        "vLLM takes a missing flag for true, the authors mean false; the wrong one costs most of the acceptance",
        "Give --norm-before-residual or --no-norm-before-residual",
    ),
    _error(
        "aux-layer-ids",
        "The layer ids cannot be those of the states that fc fuses, or can be read in two ways",
        "Servers take them for boundary ids, sort them and drop repeated ones: other states reach fc without an error",
        "Give the boundary ids with --aux-layer-ids",
    ),
    _error(
        "aux-layer-ids-unknown",
        "Nothing tells which states of the verifier fc fuses",
        "The trainer of such drafts took other layers than all others do, and released ones may differ again",
        "Give the boundary ids with --aux-layer-ids, as the training took them",
    ),
    _warning(
        "aux-layer-ids-suspicious",
        "The layer ids are those of trainers that count one less",
        "In a unified directory ids count inputs of layers; ids copied from such a trainer select the state before",
        "Measure the acceptance, or give the ids with --aux-layer-ids",
    ),
    _error(
        "aux-layer-ids-need-verifier",
        "The layer ids depend on the verifier, which was not given",
        "Without ids servers take the default of the verifier at hand, which need not be what was trained",
        "Name the verifier with --verifier",
    ),
    _error(
        "flag-contradicts-dialect",
        "config.json holds a flag that the code of this format computes otherwise",
        "Exporters are known to write flags that the training never used, and following the wrong one goes unnoticed",
        "Give the flag on the command line, or take the key out of config.json when the training did not read it",
    ),
    _error(
        "config-contradicts-itself",
        "config.json says two different things of one fact",
        "Which of the two was trained cannot be told",
        "Keep the one that the training code read, and take the other out",
    ),
    _error(
        "config-contradicts-tensors",
        "config.json denies tensors that the file holds",
        "Servers would leave the tensors out, or the flag is wrong: these are two different functions",
        "Correct the flag if the tensors were trained, or take the tensors out",
    ),
    _error(
        "not-representable",
        "The config asks for something that no server computes",
        "The unified format has no way to say it, and leaving it out changes the function",
        "Ask the publisher for a checkpoint of the plain architecture",
    ),
    _error(
        "unknown-unified-type",
        "The directory is unified, of a type that is not known here",
        "Its tensors and flags cannot be checked",
        "Update spec_convert, or install the plugin that knows the type",
    ),
    _warning(
        "trainer-differs-from-servers",
        "The trainer of this dialect computes another function than every server",
        "The conversion is exact, but servers leave out a norm that the draft may have been trained with",
        "Measure the acceptance before you rely on it",
    ),
    _note(
        "needs-the-vllm-plugin",
        "A stock vLLM does not serve this draft",
        "It would drop what it does not know without a word, so the config makes it refuse instead",
        "Nothing, if you serve it with an engine of your own: the directory is complete",
    ),
)

_VOCABULARIES = (
    _error(
        "d2t-missing",
        "The draft's vocabulary is reduced and no table says which tokens it holds",
        "Servers then take the first ones, and nearly every proposal is another token than the one meant",
        "Ask the publisher for d2t, or rebuild it from the frequency list that the training used",
    ),
    _error(
        "d2t-inconsistent",
        "d2t fits neither reading: not offsets, not absolute ids",
        "Tokens would be mapped outside the vocabulary, twice, or against t2d",
        "Rebuild it: d2t[i] = token[i] - i, t2d[token] = true",
    ),
    _error(
        "d2t-ambiguous",
        "d2t can be meant in two ways, and nothing tells which",
        "Offsets read as absolute ids, or zeros that were never filled in, map every token to another one",
        "Rebuild it with t2d beside it: d2t[i] = token[i] - i, t2d[token] = true",
    ),
    _error(
        "vocabulary-map-dtype",
        "d2t or t2d is stored in a type that cannot hold it",
        "A float d2t was rounded: bfloat16 holds whole numbers exactly only up to 256",
        "Rebuild the tables from the list of kept tokens",
    ),
    _error(
        "draft-vocabulary-too-large",
        "The draft knows more tokens than its verifier",
        "A draft vocabulary is a selection of the verifier's",
        "Check vocab_size and draft_vocab_size, and that the verifier is the right one",
    ),
    _note(
        "d2t-absolute",
        "d2t holds absolute ids",
        "The field's convention is offsets, target = i + d2t[i]: that is what is written",
        "Nothing",
    ),
    _note(
        "t2d-rebuilt",
        "t2d is not in the file and was rebuilt from d2t",
        "Some readers ask for it; it holds nothing that d2t does not",
        "Nothing",
    ),
)

_REQUESTS = (
    _warning(
        "flag-contradicts-tensors",
        "A flag takes away what the file holds and was trained with",
        "The result computes another function than the checkpoint",
        "Leave the flag out unless this is what you want",
    ),
    _error(
        "flag-not-heeded",
        "A flag was given that means nothing for this format",
        "It would be recorded and have no effect: the result is not what was asked for",
        "Leave the flag out, or check with `spec-convert detect` that the checkpoint is what you think",
    ),
    _error(
        "flag-without-tensors",
        "A flag asks for tensors that the file does not hold",
        "They would have to be made up",
        "Leave the flag out",
    ),
    _error(
        "verifier-mismatch",
        "The verifier is not the model that the draft was made for",
        "States of another width, or tokens of another vocabulary, cannot be fed to the draft",
        "Name the model that the draft was trained for with --verifier",
    ),
    _error(
        "verifier-unusable",
        "The verifier lacks something that is needed of it",
        "The draft borrows its embedding, its head or the number of its layers",
        "Give the full model, as a folder or Hub id",
    ),
    _error(
        "forward-failed",
        "The reference draft could not be run on random input",
        "Config and tensors do not make one function: a server would fail or compute something else",
        "Read the message; `spec-convert validate SOURCE` without --level forward shows what the headers say",
    ),
    _error(
        "forward-not-finite",
        "The reference draft gives NaN or infinite logits on random input",
        "No token would ever be accepted",
        "Take another checkpoint of this training run; float16 files may have overflowed when they were cast",
    ),
)

RULES: dict[str, Rule] = {
    rule.code: rule for group in (_SOURCES, _LAYOUTS, _CONFIGS, _VOCABULARIES, _REQUESTS) for rule in group
}
