"""How much memory and time `spec-convert validate --level tensors` takes on drafts of the size that people publish.

    python benchmarks/validate.py [--rounds N] [--folder FOLDER] [--most MIB]

Writes two unified EAGLE-3 drafts and their verifiers, 2 GB on disk, into FOLDER (temporary unless given). Prints a
Markdown table, and leaves with 1 when a peak is over MIB.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from convert import measure  # only the standard library there and here: see why in that file

HIDDEN, INNER, HEADS, KV_HEADS, HEAD_DIM, LAYERS = 4096, 14336, 32, 8, 128, 32
BLOCK = 1_000_006  # bytes of random numbers, repeated; no multiple of a row, so that rows differ
SIGN_AND_SMALL = bytes(0x3C + (byte & 1) | byte & 0x80 for byte in range(256))  # high bytes of bfloat16, all finite


@dataclass(frozen=True)
class Case:
    """One draft with its verifier."""

    name: str
    vocabulary: int
    drafts: int  # tokens in the draft's own vocabulary
    embedding: bool  # a copy of the verifier's in the draft, which is then compared to its end

    @property
    def tensors(self) -> dict[str, tuple[int, ...]]:
        """The matrices and norms of the draft; a vocabulary map comes with them."""
        attention, mlp = "layers.0.self_attn.", "layers.0.mlp."
        norms = ("hidden_norm", "input_layernorm", "post_attention_layernorm")
        own = {"embed_tokens.weight": (self.vocabulary, HIDDEN)} if self.embedding else {}
        return own | {
            "fc.weight": (HIDDEN, 3 * HIDDEN), "norm.weight": (HIDDEN,), "lm_head.weight": (self.drafts, HIDDEN),
            **{f"layers.0.{norm}.weight": (HIDDEN,) for norm in norms},
            f"{attention}q_proj.weight": (HEADS * HEAD_DIM, 2 * HIDDEN),
            f"{attention}k_proj.weight": (KV_HEADS * HEAD_DIM, 2 * HIDDEN),
            f"{attention}v_proj.weight": (KV_HEADS * HEAD_DIM, 2 * HIDDEN),
            f"{attention}o_proj.weight": (HIDDEN, HEADS * HEAD_DIM),
            f"{mlp}gate_proj.weight": (INNER, HIDDEN), f"{mlp}up_proj.weight": (INNER, HIDDEN),
            f"{mlp}down_proj.weight": (HIDDEN, INNER),
        }  # fmt: skip


CASES = (
    Case("Llama 3.1 8B, borrowed embedding", vocabulary=128256, drafts=32000, embedding=False),
    Case("Llama 2 7B, embedding of its own", vocabulary=32000, drafts=8000, embedding=True),
)


def numbers(size: int) -> Iterator[bytes]:
    """``size`` bytes of random bfloat16 numbers, the same every time."""
    seeded = random.Random(0)
    block = bytearray(BLOCK)
    block[0::2] = seeded.randbytes(BLOCK // 2)
    block[1::2] = seeded.randbytes(BLOCK // 2).translate(SIGN_AND_SMALL)
    for start in range(0, size, BLOCK):
        yield bytes(block[: size - start])


def vocabulary_map(case: Case) -> dict[str, tuple[str, bytes]]:
    """Every second of the first tokens, then as many in a row as are still to come."""
    apart = case.drafts // 2
    tokens = [2 * n for n in range(apart)] + [2 * apart + n for n in range(case.drafts - apart)]
    marks = bytearray(case.vocabulary)
    for token in tokens:
        marks[token] = 1
    offsets = b"".join((token - n).to_bytes(8, "little") for n, token in enumerate(tokens))
    return {"d2t": ("I64", offsets), "t2d": ("BOOL", bytes(marks))}


def write_safetensors(
    path: Path, matrices: dict[str, tuple[int, ...]], small: dict[str, tuple[str, bytes]], holes: tuple[str, ...] = ()
) -> None:
    """``matrices`` of random bfloat16, each with the same numbers; ``holes`` take no room on the disk."""
    table, end = {}, 0
    sizes = {name: 2 * shape[0] * (shape[1] if len(shape) > 1 else 1) for name, shape in matrices.items()}
    for name, (dtype, data) in small.items():
        items = len(data) // 8 if dtype == "I64" else len(data)
        table[name] = {"dtype": dtype, "shape": [items], "data_offsets": [end, end := end + len(data)]}
    for name, shape in matrices.items():
        table[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [end, end := end + sizes[name]]}
    head = json.dumps(table).encode()
    head += b" " * (-len(head) % 8)
    with path.open("wb") as file:
        file.write(len(head).to_bytes(8, "little") + head)
        for _, data in small.values():
            file.write(data)
        for name, size in sizes.items():
            if name in holes:
                file.truncate(file.tell() + size)
                file.seek(size, 1)
            else:
                file.writelines(numbers(size))


def write_tokenizer(path: Path, words: int) -> None:
    """As large as a real one of so many words, with two merges a word; written piece by piece."""
    with path.open("w") as file:
        file.write('{"version": "1.0", "added_tokens": [], "model": {"type": "BPE", "vocab": {')
        file.writelines(f'{", " if n else ""}"\u0120word{n}": {n}' for n in range(words))
        file.write('}, "merges": [')
        file.writelines(f'{", " if n else ""}["\u0120w{n}", "ord{n}"]' for n in range(2 * words))
        file.write("]}}")


def make_input(case: Case, folder: Path) -> tuple[Path, Path]:
    """The draft and its verifier. Made anew: the disk is the only thing that it costs."""
    draft, verifier = folder / "draft", folder / "verifier"
    for path in (draft, verifier):
        path.mkdir(parents=True)
    layer = {
        "model_type": "llama", "hidden_size": HIDDEN, "intermediate_size": INNER, "num_hidden_layers": 1,
        "num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS, "head_dim": HEAD_DIM,
        "vocab_size": case.vocabulary, "hidden_act": "silu", "rms_norm_eps": 1e-5, "max_position_embeddings": 8192,
        "rope_theta": 10000.0, "rope_scaling": None, "attention_bias": False, "mlp_bias": False,
        "tie_word_embeddings": False,
    }  # fmt: skip
    proposal = {
        "proposal_type": "greedy", "speculative_tokens": 3, "verifier_accept_k": 1, "accept_tolerance": 0.0,
    }  # fmt: skip
    config = {
        "architectures": ["Eagle3Speculator"], "speculators_version": "0.9.0", "speculators_model_type": "eagle3",
        "speculators_config": {
            "algorithm": "eagle3", "default_proposal_method": "greedy", "proposal_methods": [proposal],
            "verifier": {"name_or_path": str(verifier), "architectures": ["LlamaForCausalLM"]},
        },
        "tie_word_embeddings": False, "torch_dtype": "bfloat16", "draft_vocab_size": case.drafts,
        "norm_before_residual": False, "norm_before_fc": False, "fc_norm": False, "norm_output": False,
        "target_hidden_size": None, "eagle_aux_hidden_state_layer_ids": [2, LAYERS // 2, LAYERS - 3],
        "embed_requires_grad": False, "transformer_layer_config": layer | {"num_aux_hidden_states": 3},
    }  # fmt: skip
    (draft / "config.json").write_text(json.dumps(config))
    write_safetensors(draft / "model.safetensors", case.tensors, vocabulary_map(case))
    its_own = layer | {"architectures": ["LlamaForCausalLM"], "num_hidden_layers": LAYERS}
    (verifier / "config.json").write_text(json.dumps(its_own))
    tables = dict.fromkeys(("model.embed_tokens.weight", "lm_head.weight"), (case.vocabulary, HIDDEN))
    holes = tuple(tables) if not case.embedding else ("lm_head.weight",)
    write_safetensors(verifier / "model.safetensors", tables, {}, holes)
    write_tokenizer(verifier / "tokenizer.json", case.vocabulary)
    return draft, verifier


@dataclass
class Row:
    """One command on one draft, and what its runs took."""

    draft: str
    command: str
    seconds: list[float] = field(default_factory=list)
    peaks: list[float] = field(default_factory=list)


def look(case: Case, folder: Path, rounds: int) -> list[Row]:
    """The draft by itself, and with its verifier."""
    validate = [str(Path(sys.executable).with_name("spec-convert")), "validate"]
    draft, verifier = make_input(case, folder)
    size = (draft / "model.safetensors").stat().st_size / 1e6
    commands = {"": [], " --verifier BASE": ["--verifier", str(verifier)]}
    rows = {shown: Row(f"{case.name}, {size:.0f} MB", f"`validate --level tensors{shown}`") for shown in commands}
    for _ in range(rounds):
        for shown, flags in commands.items():
            seconds, peak, _ = measure([*validate, str(draft), "--level", "tensors", *flags], folder / "log")
            rows[shown].seconds.append(seconds)
            rows[shown].peaks.append(peak)
    shutil.rmtree(folder)
    return list(rows.values())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="where the input is written, and removed again")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--most", type=float, default=500, help="the peak that is allowed, in MiB")
    args = parser.parse_args()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(dir=args.folder) as scratch:
        for number, case in enumerate(CASES):
            rows += look(case, Path(scratch) / str(number), args.rounds)
    print("| draft | command | median s | min - max s | peak MiB |\n|---|---|---:|---:|---:|")
    for row in rows:
        spread = f"{min(row.seconds):.2f} - {max(row.seconds):.2f}"
        print(f"| {row.draft} | {row.command} | {median(row.seconds):.2f} | {spread} | {max(row.peaks):.0f} |")
    return int(max(max(row.peaks) for row in rows) > args.most)


if __name__ == "__main__":
    sys.exit(main())
