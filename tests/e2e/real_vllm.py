"""Serves a draft with a real vLLM on the CPU, in a process of its own, and brings back text, counters and tensors."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# One GiB of cache is plenty for short sequences: vLLM would take a large part of the machine. The worker is asked for
# the draft's tensors by sending it a function, which vLLM calls insecure.
ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "VLLM_ALLOW_INSECURE_SERIALIZATION": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_LOGGING_LEVEL": "WARNING",
    "VLLM_NO_USAGE_STATS": "1",
}
ONE_PROCESS = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0"}  # half the time to start, for the many tests that record


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """What came out: the answer to each prompt, and how many tokens were accepted at each position of the drafts."""

    token_ids: list[list[int]]
    drafts: int
    accepted_per_position: list[int]

    @property
    def acceptance_per_position(self) -> list[float]:
        return [accepted / self.drafts for accepted in self.accepted_per_position]


def unified(draft: Path) -> dict[str, Any]:
    """Arguments of `LLM` for a unified directory: its config names the verifier and the number of tokens."""
    return {"model": str(draft)}


def native(draft: Path, *, verifier: Path, method: str, tokens: int) -> dict[str, Any]:
    """Arguments of `LLM` for a draft that must be named beside its verifier."""
    speculative = {"method": method, "model": str(draft), "num_speculative_tokens": tokens}
    return {"model": str(verifier), "speculative_config": speculative}


def serve(
    llm: Mapping[str, Any],
    *,
    prompts: Sequence[str] | Sequence[Sequence[int]],
    sampling: Mapping[str, Any],
    draft_tensors: Path | None = None,
    record: Path | None = None,
    text: Sequence[int] = (),
) -> Served:
    """Answers questions or continues token ids.

    ``draft_tensors``: where to save the weights that the engine drafts with. ``record``: where to save its drafting of
    ``text``, prompt and answer, see `recorder`.
    """
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "answer.json"
        request = {
            "llm": {"enforce_eager": True, "disable_log_stats": False, **llm},
            "prompts": prompts,
            "sampling": sampling,
            "draft_tensors": str(draft_tensors) if draft_tensors else None,
            "record": str(record) if record else None,
            "text": list(text),
        }
        command = [sys.executable, __file__, str(answer)]
        environment = os.environ | ENVIRONMENT | (ONE_PROCESS if record else {})
        subprocess.run(command, input=json.dumps(request), text=True, check=True, env=environment, timeout=500)
        return Served(**json.loads(answer.read_text()))


def _serve_here(request: Mapping[str, Any]) -> dict[str, Any]:
    import recorder  # beside this file, which is run as a script
    from vllm import LLM, SamplingParams

    engine: Any = LLM(**request["llm"])
    sampling = SamplingParams(**request["sampling"])
    prompts = request["prompts"]
    if request["record"]:
        engine.collective_rpc(recorder.start, args=(request["text"],))
    if isinstance(prompts[0], str):
        outputs = engine.chat([[{"role": "user", "content": prompt}] for prompt in prompts], sampling)
    else:
        outputs = engine.generate([{"prompt_token_ids": prompt} for prompt in prompts], sampling)
    if request["draft_tensors"]:
        engine.collective_rpc(_save_draft, args=(request["draft_tensors"],))
    if request["record"]:
        engine.collective_rpc(recorder.save, args=(request["record"],))
    counters: dict[str, Any] = {metric.name: metric for metric in engine.get_metrics()}
    return {
        "token_ids": [list(output.outputs[0].token_ids) for output in outputs],
        "drafts": counters["vllm:spec_decode_num_drafts"].value,
        "accepted_per_position": counters["vllm:spec_decode_num_accepted_tokens_per_pos"].values,
    }


def _save_draft(worker: Any, target: str) -> None:
    from safetensors.torch import save_file

    save_file(weights_of(worker.model_runner.drafter.model), target)


def weights_of(draft: Any) -> dict[str, Any]:
    """All parameters and buffers of a model in vLLM, as they were loaded."""
    import torch

    held = {**dict(draft.named_parameters()), **dict(draft.named_buffers())}
    for name, layer in draft.named_modules():
        # vLLM packs linear weights for the CPU and empties the parameter: what the layer makes of the unit vectors
        # is its weight, transposed.
        if hasattr(layer, "cpu_linear") and layer.weight.numel() == 0:
            held[f"{name}.weight"] = layer.quant_method.apply(layer, torch.eye(layer.input_size)).T
    return {name: tensor.detach().clone().contiguous() for name, tensor in held.items()}


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(json.dumps(_serve_here(json.load(sys.stdin))))
