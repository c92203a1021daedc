"""config.json and what else is read beside weights: damaged, endless, or with a value of every odd kind in each key."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .making import EAGLE, EAGLE3, Draft, Make, add, case, sparse

UNREADABLE = "config-unreadable"


def text(content: bytes | Callable[[], bytes]) -> Make:
    return lambda draft: draft.config.write_bytes(content if isinstance(content, bytes) else content())


for name, content in {
    "no byte": b"",
    "a hundred thousand lists in each other": b"[" * 100_000,
    "a hundred thousand objects in each other": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "seventy objects in each other": b'{"a":' * 70 + b"1" + b"}" * 70,
    "a key twice": b'{"hidden_size": 16, "hidden_size": 32}',
    "a key twice deep inside": b'{"a": [{"b": {"c": 1, "c": 2}}]}',
    "a number of a hundred thousand digits": b'{"hidden_size": 1%b}' % (b"0" * 100_000),
    "half a UTF-16 pair": b'{"architectures": ["\\ud800"]}',
    "half a UTF-16 pair in a key": b'{"\\udfff": 1}',
    "UTF-16": '{"hidden_size": 16}'.encode("utf-16"),
    "a mark of the byte order": b'\xef\xbb\xbf{"hidden_size": 16}',
    "a zero inside": b'{"hidden_size": 16}\0',
    "two objects": b"{}{}",
    "a comment": b'{"hidden_size": 16 /* or 32 */}',
    "only a number": b"1e999",
    "only text": b'"config"',
    "three million values": lambda: b'{"a":[%b0]}' % (b"0," * 3_000_000),
    "thirty megabytes of spaces": lambda: b"{" + b" " * 33_000_000 + b"}",
}.items():
    add(f"config.json: {name}", UNREADABLE, text(content), few=callable(content))


@case("config.json: a hundred megabytes", UNREADABLE)
def huge(draft: Draft) -> None:
    sparse(draft.config, 100_000_000, b'{"a": "')


@case("config.json: nearly too many values", None, few=True)
def many_values(draft: Draft) -> None:
    draft.set_config(other={"list": [0] * 490_000})


@case("config.json: words that clear the screen", None)
def escapes(draft: Draft) -> None:
    draft.set_config(architectures=["\x1b[2J\n::error::"], model_type="\x1b]0;x\x07", torch_dtype="\u202e")


ODD: dict[str, Any] = {
    "null": None, "true": True, "zero": 0, "minus one": -1, "2^31": 2**31, "10^18": 10**18, "10^90": 10**90,
    "infinity": float("inf"), "NaN": float("nan"), "1.5": 1.5, "1e308": 1e308, "1e-320": 1e-320, "text": "16",
    "escapes": "\x1b[2J", "a path": "../../outside", "a list": [], "a list of lists": [[16]], "an object": {},
    "an object with a key": {"rope_type": "\x1b[2J", "factor": -1, "eagle_aux_hidden_state_layer_ids": [10**18]},
}  # fmt: skip
EAGLE3_KEYS = (
    "architectures", "hidden_act", "hidden_size", "intermediate_size", "max_position_embeddings", "model_type",
    "num_attention_heads", "num_key_value_heads", "num_hidden_layers", "head_dim", "rms_norm_eps", "vocab_size",
    "rope_theta", "rope_scaling", "rope_parameters", "tie_word_embeddings", "torch_dtype", "bias", "attention_bias",
    "quantization_config", "draft_vocab_size", "target_hidden_size", "eagle_config", "norm_before_residual", "fc_norm",
)  # fmt: skip
EAGLE1 = ("bias", "hidden_size", "num_hidden_layers")  # the other facts are read by the same code


def changed(key: str, value: Any) -> Make:
    return lambda draft: draft.set_config(**{key: value})


KEYS: dict[str, tuple[Make, Path]] = {}
for keys, base in ((EAGLE1, EAGLE), (EAGLE3_KEYS, EAGLE3)):
    for key in keys:
        for name, value in ODD.items():
            KEYS[f"{base.name}: {key} is {name}"] = changed(key, value), base


def unified(draft: Draft) -> dict[str, Any]:
    """A config in the unified format, written without its facts being right."""
    config = json.loads(draft.config.read_text())
    verifier = {"name_or_path": "../../outside", "architectures": ["LlamaForCausalLM"]}
    proposal = {"proposal_type": "greedy", "speculative_tokens": 3}
    return {
        "architectures": ["Eagle3Speculator"], "speculators_model_type": "eagle3", "draft_vocab_size": 24,
        "transformer_layer_config": config, "norm_before_residual": False,
        "speculators_config": {
            "algorithm": "eagle3", "default_proposal_method": "greedy", "proposal_methods": [proposal],
            "verifier": verifier,
        },
    }  # fmt: skip


UNIFIED_RULES = {
    "of an unknown type": "unknown-unified-type",
    "of a type that is a list": "unknown-unified-type",
    "of a class to import": "unknown-unified-type",
    "of layers that are text": "config-key-invalid",
    "with a hundred million layers": "config-key-missing",
}
for name, changes in {
    "as it is": {},
    "of an unknown type": {"speculators_model_type": "\x1b[2J"},
    "of a type that is a list": {"speculators_model_type": ["eagle3"]},
    "of layers that are text": {"transformer_layer_config": "LlamaConfig"},
    "of a class to import": {"speculators_model_type": "os.system", "auto_map": {"AutoConfig": "x.y"}},
    "without a verifier": {"speculators_config": []},
    "with a hundred million layers": {"transformer_layer_config": {"num_hidden_layers": 10**8, "hidden_size": 10**8}},
}.items():

    def make(draft: Draft, changes: dict[str, Any] = changes) -> None:
        draft.config.write_text(json.dumps(unified(draft) | changes))
        (draft.checkpoint / "conversion.json").write_bytes(b"[" * 100_000)

    add(f"a unified config {name}", UNIFIED_RULES.get(name), make, base=EAGLE3)
