"""Rules about config.json: facts that are missing, contradict each other, or cannot be carried over."""

from __future__ import annotations

from spec_convert.rules.entry import error, note, warning

RULES = (
    error(
        "config-missing",
        "There is no config.json beside the weights",
        "Heads, norm epsilon and rope base cannot be seen in the tensors",
        "Put the config.json that was published with these weights beside them",
    ),
    error(
        "config-key-missing",
        "config.json lacks a fact that nothing else tells",
        "Any default would be a guess, and a wrong guess costs the acceptance without an error",
        "Add the key as the trainer had it",
    ),
    error(
        "config-key-invalid",
        "A key of config.json has a value that cannot be meant",
        "The fact is needed and cannot be read",
        "Correct the key as the trainer had it",
    ),
    error(
        "config-invalid",
        "The unified config would not be valid",
        "Servers would refuse it or read it another way",
        "Correct what the message names, in config.json or by flag",
    ),
    warning(
        "layer-count-differs",
        "config.json counts other layers or heads than the file holds",
        "vLLM leaves what is only in the config uninitialised. The count of the file is written",
        "Nothing, if the file is complete",
    ),
    warning(
        "head-dim-differs",
        "config.json gives another head size than the tensors have",
        "The size of the tensors is written",
        "Nothing, if the number of heads is right",
    ),
    note(
        "dtype-differs",
        "config.json names another dtype than the tensors have",
        "Published configs often keep the verifier's dtype. That of the tensors is written",
        "Nothing; `--dtype` casts",
    ),
    note(
        "rope-theta-absent",
        "config.json has no rope_theta",
        "Implementations then use 10000, and the draft was trained so, whatever its verifier uses: 10000 is written",
        "Nothing, unless you know that the trainer used another base: then give --rope-theta",
    ),
    warning(
        "rope-not-as-config",
        "config.json gives a rotary embedding that the trainer of this dialect does not read",
        "What the trainer computed with is written; turned by what config.json says, the draft would be accepted less",
        "Nothing, or give --rope-theta if you know that another base was trained",
    ),
    note(
        "rope-as-trained-unknown",
        "The trainer of this dialect did not always read what config.json says of the rotary embedding",
        "Which release trained the draft is not in the file. What config.json says is written",
        "Give --rope-theta 10000 if it is an early one; the wrong base costs some acceptance, so measure",
    ),
    note(
        "fixed-by-the-trainer",
        "config.json lacks facts that the code of this trainer fixes",
        "Every draft of this trainer computes with them; they are written as the code has them",
        "Nothing, unless you changed the code: then add the keys to config.json as they were",
    ),
    error(
        "norm-before-residual-unknown",
        "Nothing tells whether the residual is taken before or after hidden_norm",
        "vLLM takes a missing flag for true, the authors mean false; the wrong one costs most of the acceptance",
        "Give --norm-before-residual or --no-norm-before-residual",
    ),
    error(
        "aux-layer-ids",
        "The layer ids cannot be those of the states that fc fuses, or can be read in two ways",
        "Servers take them for boundary ids, sort them and drop repeated ones: other states reach fc without an error",
        "Say with --aux-layer-convention how they are counted, or give the boundary ids with --aux-layer-ids",
    ),
    error(
        "aux-layer-ids-unknown",
        "Nothing tells which states of the verifier fc fuses",
        "The trainer of such drafts took other layers than all others do, and released ones may differ again",
        "Give the boundary ids with --aux-layer-ids, as the training took them",
    ),
    warning(
        "aux-layer-ids-suspicious",
        "The layer ids are those of trainers that count one less",
        "In a unified directory ids count inputs of layers; ids copied from such a trainer select the state before",
        "Measure the acceptance, or give --aux-layer-convention output",
    ),
    note(
        "aux-layer-ids-need-verifier",
        "The layer ids depend on the verifier, which was not given",
        "Without ids servers take the default of the verifier at hand, which need not be what was trained",
        "Nothing yet: `convert` takes them from the verifier. To have them checked too, name it with --verifier",
    ),
    error(
        "flag-contradicts-dialect",
        "config.json holds a flag that the code of this format computes otherwise",
        "Exporters are known to write flags that the training never used, and following the wrong one goes unnoticed",
        "Give the flag on the command line, or take the key out of config.json when the training did not read it",
    ),
    error(
        "config-contradicts-itself",
        "config.json says two different things of one fact",
        "Which of the two was trained cannot be told",
        "Keep the one that the training code read, and take the other out",
    ),
    error(
        "config-contradicts-tensors",
        "config.json denies tensors that the file holds",
        "Servers would leave the tensors out, or the flag is wrong: these are two different functions",
        "Correct the flag if the tensors were trained, or take the tensors out",
    ),
    error(
        "not-representable",
        "The config asks for something that no server computes",
        "The unified format has no way to say it, and leaving it out changes the function",
        "Ask the publisher for a checkpoint of the plain architecture",
    ),
    error(
        "unknown-unified-type",
        "The directory is unified, of a type that is not known here",
        "Its tensors and flags cannot be checked",
        "Update spec_convert, or install the plugin that knows the type",
    ),
    warning(
        "trainer-differs-from-servers",
        "The trainer of this dialect computes another function than every server",
        "The conversion is exact, but servers leave out a norm that the draft may have been trained with",
        "Measure the acceptance before you rely on it",
    ),
    warning(
        "state-fed-back-differs",
        "The trainer's code feeds another state to the next draft step than any server",
        "The first drafted token of each proposal is exact, later ones are guessed from a state that was not trained",
        "Measure the acceptance by position, and propose fewer tokens where it falls",
    ),
    note(
        "positions-extended",
        "config.json states fewer positions than the verifier has",
        "vLLM stops drafting at this number, without a word. A rotary embedding is the same function at any length",
        "Nothing. Far beyond the length it was trained on, a draft may be accepted less often: measure",
    ),
    warning(
        "positions-end-early",
        "config.json states fewer positions than the verifier has, and its rope scaling depends on them",
        "vLLM stops drafting at this number, without a word: longer texts are decoded by the verifier alone",
        "Nothing, if your texts are shorter",
    ),
    note(
        "needs-the-vllm-plugin",
        "A stock vLLM does not serve this draft",
        "It would drop what it does not know without a word, so the config makes it refuse instead",
        "Install spec-convert beside vLLM: its plugin serves the directory. Or `spec-convert export --to vllm`",
    ),
    warning(
        "windows-need-the-plugin",
        "A stock vLLM shows the rows of some layers other rows of their block than they were trained to see",
        "It reads one word for all layers of a DFlash draft, and none of a DSpark draft, and fewer tokens are accepted",
        "Install spec-convert beside vLLM: its plugin makes vLLM go by the layer types",
    ),
)
