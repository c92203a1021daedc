"""One vLLM that reads texts: `python -m spec_convert.training.capture.vllm_worker`, started by `vllm_engine`.

It receives the arguments of vLLM's `LLM` and tells `{"ready": true}` when that is. Then it receives chunks, each
a list of texts as token ids, and tells for each `{"files": […]}`, where the states of each text are or will be; after
the last one it receives None.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from spec_convert.serving.capture import PATH
from spec_convert.serving.worker import Parent


def open_llm(arguments: Mapping[str, Any]) -> Any:
    """vLLM's `LLM`, whose scheduler runs in this process, only when it is told to.

    Otherwise it would begin with whatever texts of a chunk have reached it, and the numbers, which depend on what is
    read together, would depend on the moment.
    """
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    import vllm
    from vllm.platforms import current_platform

    # On a CPU compiling costs more than it ever gains on texts that are only read.
    own = {"enforce_eager": True} if current_platform.is_cpu() else {}
    return vllm.LLM(**{**own, **arguments})


def read(llm: Any, chunk: Sequence[Sequence[int]]) -> list[str]:
    """The files of a chunk. When this returns nothing of it is left in the engine that a later chunk could notice."""
    from vllm import SamplingParams

    sampling = SamplingParams(max_tokens=1, temperature=0.0, detokenize=False)
    outputs = llm.generate([{"prompt_token_ids": ids} for ids in chunk], sampling, use_tqdm=False)
    scheduler = llm.llm_engine.engine_core.engine_core.scheduler
    while scheduler.has_requests():  # the last ones have finished, and their states are still to be handed over
        llm.llm_engine.step()
    return [output.kv_transfer_params[PATH] for output in outputs]


def main() -> None:
    parent = Parent()
    llm = open_llm(parent.receive())
    parent.tell(ready=True)
    while (chunk := parent.receive()) is not None:
        parent.tell(files=read(llm, chunk))


if __name__ == "__main__":
    main()
