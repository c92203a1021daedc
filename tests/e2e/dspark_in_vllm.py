"""Run by the Python that has vLLM: loads a unified DSpark directory into vLLM's model, and lets its heads compute.

vLLM drafts with DSpark in its second model runner alone, which needs Triton, and there is none for the CPU. So the
model is loaded without a runner: its config is told that Triton is there, and no kernel of it is ever called.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile

os.environ |= {"VLLM_USE_V2_MODEL_RUNNER": "1", "HF_HUB_OFFLINE": "1", "VLLM_LOGGING_LEVEL": "WARNING"}

import torch
from real_vllm import weights_of  # beside this file, which is run as a script
from safetensors.torch import load_file, save_file
from vllm.config import set_current_vllm_config
from vllm.config import vllm as config_module
from vllm.distributed import init_distributed_environment, initialize_model_parallel
from vllm.engine.arg_utils import EngineArgs
from vllm.model_executor.model_loader import get_model
from vllm.transformers_utils.config import maybe_override_with_speculators


def main(folder: str, given: str, made: str) -> None:
    """``given``: a file with `tokens` [T], `rows` [T, H] and the verifier's `states`; ``made``: where answers go."""
    config_module.HAS_TRITON = True
    torch.accelerator.empty_cache = lambda: None  # as the runner for the CPU does it
    verifier, _, speculative = maybe_override_with_speculators(model=folder, tokenizer=None, trust_remote_code=False)
    arguments = EngineArgs(
        model=verifier, speculative_config=speculative, dtype="float32", enforce_eager=True, skip_tokenizer_init=True
    )
    config, asked = arguments.create_engine_config(), load_file(given)
    pair = config.speculative_config
    with set_current_vllm_config(config), tempfile.NamedTemporaryFile() as rendezvous, torch.inference_mode():
        init_distributed_environment(1, 0, f"file://{rendezvous.name}", 0, "gloo")
        initialize_model_parallel(1, 1)
        draft = get_model(vllm_config=config, model_config=pair.draft_model_config)
        embedded = draft.markov_embed(asked["tokens"])
        answers = {
            "fused": draft.combine_hidden_states(asked["states"]),
            "bias": draft.markov_bias(embedded),
            "confidence": draft.compute_confidence(asked["rows"], embedded),
            "said": draft.map_draft_to_target(torch.arange(draft.config.draft_vocab_size)),
        }
        answers |= {f"weights.{name}": weight for name, weight in weights_of(draft).items()}
        save_file({name: tensor.contiguous() for name, tensor in answers.items()}, made)
    understood = {
        "method": pair.method,
        "tokens": pair.num_speculative_tokens,
        "mask": draft.model.mask_token_id,
        "sample_from_anchor": draft.config.sample_from_anchor,
        "causal": draft.get_draft_attn_causal(),
        "layers": draft.config.eagle_aux_hidden_state_layer_ids,
    }
    print(json.dumps(understood))


if __name__ == "__main__":
    main(*sys.argv[1:])
