"""How fast `spec-convert generate` captures hidden states, beside the same model that reads the same texts for nothing.

    python benchmarks/generate.py [--verifier FOLDER] [--samples N] [--rounds N] [--case NAME]...

Prepares the conversations of GSM8K that lie in the shared folder (SPEC_CONVERT_SHARED, or `../shared`) for SmolLM2,
which is made anew unless a folder is given. Each case is a process of its own. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

HERE = Path(__file__).resolve().parent
CONVERSATIONS = Path(os.environ.get("SPEC_CONVERT_SHARED", HERE.parent.parent / "shared")) / "real"
CASES = ("padded", "packed", "vllm")
BATCH_TOKENS, COMPUTE, STORED = 2048, "float32", "bfloat16"


def speeds(passed: Callable[[], object], tokens: int) -> float:
    """Tokens a second of one pass over all texts."""
    started = time.perf_counter()
    passed()
    return tokens / (time.perf_counter() - started)


def capturing(data: Path, verifier: Path, samples: int, engine: Any) -> Callable[[], dict[str, Any]]:
    """`generate` without the start of its engine, into a folder of its own each time."""
    from spec_convert.serving.capture import default_layers
    from spec_convert.training.capture.running import CaptureRequest, run_capture
    from spec_convert.verifier import open_verifier

    opened = open_verifier(verifier)

    def capture() -> dict[str, Any]:
        with tempfile.TemporaryDirectory(dir=data.parent) as output:
            request = CaptureRequest(
                data=data, output=Path(output), verifier=opened, max_samples=samples, dtype=STORED,
                layer_ids=default_layers(opened.num_hidden_layers), shard_bytes=256_000_000,
            )  # fmt: skip
            return run_capture(request, lambda: nullcontext(engine), made_with={"engine": engine.name}).to_json()

    return capture


def with_transformers(batching: str, data: Path, verifier: Path, samples: int, rounds: int) -> dict[str, Any]:
    """In turn: the decoder alone over the batches of the engine, and the capture."""
    import torch

    from spec_convert.evaluation.verifier_model import load_model
    from spec_convert.serving.capture import default_layers
    from spec_convert.training.capture.batching import BATCHINGS
    from spec_convert.training.capture.transformers_engine import TransformersEngine

    def load() -> Any:
        return load_model(str(verifier), revision=None, dtype=COMPUTE, device="cpu").eval()

    decoder, hooked = load().get_decoder(), load()
    batches = list(BATCHINGS[batching](texts_of(data, samples), budget=BATCH_TOKENS))

    @torch.inference_mode()
    def prefill() -> None:
        for batch in batches:
            decoder(input_ids=batch.input_ids, position_ids=batch.position_ids, use_cache=False)

    engine = TransformersEngine(
        hooked, default_layers(hooked.config.num_hidden_layers), dtype=STORED, batching=batching,
        batch_tokens=BATCH_TOKENS,
    )  # fmt: skip
    capture = capturing(data, verifier, samples, engine)
    tokens = sum(sum(batch.lengths) for batch in batches)
    decoder(input_ids=batches[0].input_ids, use_cache=False)
    pairs = [(speeds(prefill, tokens), capture()) for _ in range(rounds)]
    return {"prefill": [speed for speed, _ in pairs], "captured": [told for _, told in pairs]}


def with_vllm(data: Path, verifier: Path, samples: int, rounds: int) -> dict[str, Any]:
    """One vLLM that reads for nothing, then one that captures: two do not fit beside each other."""
    prefill = subprocess.run(
        [sys.executable, __file__, "--child", "prefill", *arguments(data, verifier, samples, rounds)],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    from spec_convert.serving.capture import default_layers
    from spec_convert.training.capture.vllm_engine import open_vllm_engine
    from spec_convert.verifier import open_verifier

    opened = open_verifier(verifier)
    texts = texts_of(data, samples)
    with open_vllm_engine(
        opened, default_layers(opened.num_hidden_layers), dtype=STORED, compute_dtype=COMPUTE, scratch=data.parent,
        tensor_parallel_size=None, llm_args={}, verbose=False, longest=max(map(len, texts)),
    ) as engine:  # fmt: skip
        list(engine.capture([texts[:2]]))
        capture = capturing(data, verifier, samples, engine)
        return {"prefill": json.loads(prefill.stdout.splitlines()[-1]), "captured": [capture() for _ in range(rounds)]}


def vllm_prefill(data: Path, verifier: Path, samples: int, rounds: int) -> list[float]:
    """vLLM as the engine starts it, without the connector."""
    from spec_convert.training.capture.vllm_worker import open_llm

    texts = texts_of(data, samples)
    llm = open_llm(
        {"model": str(verifier), "dtype": COMPUTE, "max_model_len": max(map(len, texts)) + 1,
         "skip_tokenizer_init": True, "enable_prefix_caching": False}
    )  # fmt: skip
    from vllm import SamplingParams

    one = SamplingParams(max_tokens=1, temperature=0.0, detokenize=False)

    def prefill(some: list[list[int]]) -> None:
        llm.generate([{"prompt_token_ids": ids} for ids in some], one, use_tqdm=False)

    prefill(texts[:2])
    return [speeds(lambda: prefill(texts), sum(map(len, texts))) for _ in range(rounds)]


def texts_of(data: Path, samples: int) -> list[list[int]]:
    """The texts that the capture takes."""
    from spec_convert.training.capture.plan import plan_capture
    from spec_convert.training.store.reading import open_store

    store = open_store(data)
    plan = plan_capture(store, bytes_per_token=1, shard_bytes=1, max_samples=samples, target_tokens=None)
    return [store[place].input_ids.tolist() for (place,) in plan.shards]


def arguments(data: Path, verifier: Path, samples: int, rounds: int) -> list[str]:
    return ["--data", str(data), "--verifier", str(verifier), "--samples", str(samples), "--rounds", str(rounds)]


def child(case: str, *asked: Any) -> object:
    if case == "prefill":
        return vllm_prefill(*asked)
    return with_vllm(*asked) if case == "vllm" else with_transformers(case, *asked)


def row(case: str, measured: dict[str, Any]) -> str:
    captured = measured["captured"]
    prefill, generate = median(measured["prefill"]), median(told["tokens_per_second"] for told in captured)
    per_token, states = captured[0]["bytes_per_token"], captured[0]["state_bytes_per_token"]
    name = "vllm" if case == "vllm" else f"transformers, {case}"
    return f"| {name} | {prefill:,.0f} | {generate:,.0f} | {generate / prefill:.2f} | {per_token:,.0f} | {states:,} |"


def make_input(folder: Path, verifier: Path | None, samples: int) -> tuple[Path, Path]:
    """The prepared conversations, and the verifier."""
    from spec_convert.training.demo.smollm2 import smollm2_folder

    verifier = verifier or smollm2_folder(folder / "verifier")
    command = [str(Path(sys.executable).with_name("spec-convert")), "--quiet", "prepare"]
    source = CONVERSATIONS / "gsm8k_smol_onpolicy.jsonl"
    flags = ["--verifier", str(verifier), "--max-samples", str(samples)]
    subprocess.run([*command, str(source), str(folder / "data"), *flags], check=True, stdout=subprocess.DEVNULL)
    return folder / "data", verifier


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--verifier", type=Path, help="SmolLM2-135M-Instruct, as a folder")
    parser.add_argument("--samples", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--case", choices=CASES, action="append", help="default: all that are installed")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--data", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(json.dumps(child(args.child, args.data, args.verifier, args.samples, args.rounds)))
        return
    scratch = Path(tempfile.mkdtemp())
    try:
        data, verifier = make_input(scratch, args.verifier, args.samples)
        columns = ("engine", "prefill tokens/s", "generate tokens/s", "ratio", "bytes a token", "of states")
        print(f"| {' | '.join(columns)} |\n|---|---:|---:|---:|---:|---:|", flush=True)
        for case in args.case or CASES:
            if case != "vllm" or find_spec("vllm"):
                asked = arguments(data, verifier, args.samples, args.rounds)
                done = subprocess.run(
                    [sys.executable, __file__, "--child", case, *asked], check=True, stdout=subprocess.PIPE
                )
                print(row(case, json.loads(done.stdout.splitlines()[-1])), flush=True)
    finally:
        shutil.rmtree(scratch)


if __name__ == "__main__":
    main()
