"""Rules about what servers make of a draft as it lies: what they guess, read otherwise, or feed it."""

from __future__ import annotations

from spec_convert.rules.entry import error, note, warning

AGAIN = "Convert the directory again: `spec-convert convert SOURCE OUTPUT` writes every fact as it is meant"

RULES = (
    error(
        "left-to-servers",
        "A unified directory leaves out a fact that servers guess wrongly, or cannot do without",
        "vLLM takes a default of its own, or refuses the directory. A wrong guess costs acceptance without an error",
        AGAIN,
    ),
    note(
        "not-written",
        "A unified directory leaves out facts that vLLM happens to guess as they are meant",
        "Other readers guess otherwise, and the next release may too",
        "Nothing, if only the vLLM of today serves it; converting the directory again writes them",
    ),
    error(
        "read-otherwise",
        "A key of a unified config says something else than the tensors",
        "Servers believe the key: they build another model, fail to load it, or leave parts of it uninitialised",
        AGAIN,
    ),
    error(
        "obeyed-by-servers",
        "A key of the layer config changes what vLLM computes, or whether it starts",
        "vLLM takes transformer_layer_config for the draft's whole config, and reads more of it than is meant there",
        "Take the key out if the training did not use it; if it did, no server computes this draft",
    ),
    error(
        "aux-count",
        "The config does not say how many verifier states fc fuses, or gives another number",
        "vLLM sizes fc by `num_aux_hidden_states` in transformer_layer_config, and takes 3 when it is not there",
        AGAIN,
    ),
    warning(
        "aux-layer-ids-not-written",
        "A unified directory does not say which states of the verifier it was trained on",
        "vLLM then takes 2, N//2 and N-3 of any verifier, without a word: a draft of other states is not accepted",
        "Ask the publisher for the ids, measure the acceptance, and convert again with --aux-layer-ids",
    ),
    warning(
        "drafting-ends-early",
        "A unified directory states fewer positions than its verifier has",
        "vLLM stops drafting at this number, without a word: longer texts are decoded by the verifier alone",
        AGAIN,
    ),
    warning(
        "verifier-unnamed",
        "A unified directory does not name its verifier",
        "With `vllm serve DIRECTORY` this name is the model and the tokenizer: without one it fails",
        "Convert it again with --verifier, or name the model whenever you serve it",
    ),
    error(
        "top-level-model-type",
        "A unified config has a `model_type` that sends servers another way",
        "vLLM reads a directory as unified only when this key is absent, and else by the rules of that model",
        "Take the key out of config.json, or convert the directory again",
    ),
    error(
        "bias-read-by-attention",
        "A unified config holds `bias`, which is EAGLE's word for the fusion and vLLM's for the attention",
        "vLLM then builds biases of the attention that no file fills: the draft computes with garbage, without a word",
        "Take the key out; the fusion bias is decided by the tensor fc.bias",
    ),
    error(
        "full-vocabulary-map",
        "A unified directory holds `d2t` although the draft's vocabulary is the verifier's",
        "vLLM has no place for it then, and fails to load the draft",
        AGAIN,
    ),
    error(
        "d2t-read-as-offsets",
        "The `d2t` of a unified directory holds absolute ids",
        "Servers add the row number to what it holds: the row of token i proposes another token, and few are accepted",
        AGAIN,
    ),
    error(
        "tensor-read-otherwise",
        "A tensor of a unified directory lies there under another name, or in another form, than servers read",
        "They fail to load it, or leave its place uninitialised without a word",
        AGAIN,
    ),
    warning(
        "vllm-spelling",
        "A unified directory holds tensors under names that vLLM knows and the speculators library does not",
        "vLLM renames them while it loads; the library leaves their places random, and warns at most",
        AGAIN,
    ),
    warning(
        "t2d-missing",
        "A unified directory with a reduced vocabulary holds no `t2d`",
        "vLLM does not read it, but the speculators library picks the rows of the verifier's head with it",
        AGAIN,
    ),
    note(
        "unread-tensor",
        "A unified directory holds tensors that servers leave out",
        "They change nothing, and converting the directory again drops them",
        "Nothing",
    ),
    error(
        "weights-beside",
        "Beside the weights of a unified directory lie others",
        "vLLM loads every safetensors file of a folder that has no index: it fails, or the last one wins",
        "Keep training states and other copies of the weights in another folder",
    ),
    warning(
        "not-as-converted",
        "The tensors are not those that conversion.json says were written",
        "The file was changed or replaced after the conversion, and what was proven then is not proven of it",
        "Convert the source again; if the change was meant, take conversion.json away",
    ),
    error(
        "reduced-head-missing",
        "The draft's vocabulary is reduced and the file holds no head for it",
        "Servers take the first rows of the verifier's head, which belong to other tokens, and say nothing",
        "Ask the publisher for the file with lm_head.weight",
    ),
    warning(
        "last-layer-state",
        "The draft reads the state behind the verifier's last layer",
        "vLLM hands it over before the verifier's final norm; transformers' hidden_states[-1] is taken after it",
        "Measure the acceptance. If the states were captured with transformers, the draft expects others than vLLM's",
    ),
    note(
        "served-inside-its-target",
        "The draft is an MTP head, which no server reads apart from its target",
        "vLLM 0.32 takes MTP heads of the target's own files alone, and refuses the unified type `mtp`",
        "Nothing to train it; to serve it, `spec-convert stitch UNIFIED FOLDER`, then FOLDER by the method `mtp`",
    ),
    note(
        "mixed-dtypes",
        "The draft's weights are stored in more than one dtype",
        "Servers cast them all to the verifier's; some trainers keep norms in float32, others leave a cast unfinished",
        "Nothing, if the trainer writes them so; `--dtype` casts them all",
    ),
)
