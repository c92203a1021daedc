"""Rules about where a checkpoint comes from: files, containers, the Hub."""

from __future__ import annotations

from spec_convert.rules.entry import error

RULES = (
    error(
        "no-such-source",
        "The source is no file or folder here and no id on the Hub",
        "Nothing can be read from it",
        "Check the spelling. A Hub id looks like org/name or org/name@revision",
    ),
    error(
        "link-leaves-folder",
        "A file of the checkpoint is a link to a place outside its folder",
        "A checkpoint that somebody else packed could read any file of this machine that way. Links inside the folder "
        "and those of a Hub cache are followed, and so is a link that SOURCE itself names",
        "Put the file itself in its place, or name the folder that it lies in",
    ),
    error(
        "not-a-file",
        "A file of the checkpoint is a pipe, a device, a folder, or a link that leads nowhere",
        "Opening a pipe waits for ever and a device may never end; of a broken download only the links may be left",
        "Download the checkpoint again",
    ),
    error(
        "no-weights",
        "The source holds no weight file",
        "There is nothing to convert: often only config.json was downloaded, or the folder above was given",
        "Download the weights too, or name the folder that holds model.safetensors or pytorch_model.bin",
    ),
    error(
        "ambiguous-weights",
        "The source holds several weight files and nothing says which one counts",
        "Taking the wrong one would convert another checkpoint without a word",
        "Name the file itself instead of its folder",
    ),
    error(
        "git-lfs-pointer",
        "The weight file is a git-lfs pointer",
        "A repository cloned without git-lfs holds small text files in place of the weights",
        "Run `git lfs pull` in the clone, or give the Hub id instead",
    ),
    error(
        "unreadable-container",
        "A weight file is damaged or of a kind that is not read here",
        "A header that contradicts its file would be read as other weights than were saved",
        "Download the file again and compare its sha256; convert other kinds to safetensors first",
    ),
    error(
        "unsafe-pickle",
        "A pickled weight file wants to call something that loading weights does not need",
        "Unpickling it the usual way would run that code on this machine. Here nothing of it was run",
        "Do not load this file with torch.load. Ask the publisher for safetensors",
    ),
    error(
        "index-mismatch",
        "The index of a sharded checkpoint does not fit its shards",
        "Tensors would be missing, or read from a file outside the checkpoint",
        "Download the checkpoint again, index and shards together",
    ),
    error(
        "config-unreadable",
        "config.json is not a JSON object",
        "The number of heads and the rope base stand only there",
        "Take config.json from the publisher's repository again",
    ),
    error(
        "hub-not-found",
        "The Hub has no such repository, file or revision, or it is private",
        "Nothing can be read from it. The Hub does not tell a private repository from one that does not exist",
        "Check the spelling; for a private repository log in with `hf auth login` or set HF_TOKEN",
    ),
    error(
        "hub-gated",
        "The repository is gated and access was not granted",
        "Its owner asks for conditions to be accepted before anything but the model card can be read",
        "Accept the conditions on the repository's page, then log in with `hf auth login` or set HF_TOKEN",
    ),
    error(
        "hub-unauthorised",
        "The Hub refused the token, or the token lacks a permission",
        "The request was understood and denied: trying again does not help",
        "Check the token with `hf auth whoami`; pushing needs one with write access",
    ),
    error(
        "hub-no-network",
        "The Hub cannot be reached",
        "Headers of a Hub id are read over the network, and what is needed is not in the local cache",
        "Check the connection, HF_ENDPOINT and HF_HUB_OFFLINE, or pass a local folder",
    ),
    error(
        "hub-transfer",
        "The Hub answered, but not with what was asked for",
        "A truncated or whole answer in place of a byte range would be read as other weights",
        "Try again; if it persists, look at the proxy in between or at the Hub's status page",
    ),
)

# Of what is not there, or does not answer, nothing is known: neither that it is right nor that it is wrong.
OUT_OF_REACH = frozenset(
    {"no-such-source", "hub-not-found", "hub-gated", "hub-unauthorised", "hub-no-network", "hub-transfer"}
)
