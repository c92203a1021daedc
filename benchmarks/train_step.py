"""Training steps of one contender of `train.py`, which runs this in a process of its own, and prints what they took.

Both draw their weights and their text anew, from the names of the tensors. What makes the two losses one function:

- It is KL(p || q) over the draft's tokens, and every step of the chain weighs the same (theirs: `kl_div`, decay 1).
- The first three tokens of a document are no answer's. Else theirs also learns, at later steps, to guess the first
  tokens of a document from the end of the one before it.
- Theirs reads the mask at the token after which is guessed, ours there and at the guessed one. Theirs is therefore
  given a mask without the last token of each document, after which there is nothing to guess.
- Theirs holds the draft's head fixed, and ours trains it: the first of our rows holds it fixed as well.
"""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zlib import crc32

import torch
import torch.nn.functional as F
from torch import Tensor
from train import Contender, Work

TTT_STEPS = 3
EPS = 1e-5


@dataclass(frozen=True)
class Shape:
    """A draft and its verifier."""

    hidden: int
    inner: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    drafts: int  # tokens in the draft's own vocabulary
    tied: bool  # the verifier's embedding is its head

    @property
    def config(self) -> dict[str, Any]:
        """Of a unified draft: both read it."""
        layer = {
            "model_type": "llama", "hidden_size": self.hidden, "intermediate_size": self.inner,
            "num_hidden_layers": 1, "num_attention_heads": self.heads, "num_key_value_heads": self.kv_heads,
            "head_dim": self.head_dim, "vocab_size": self.vocabulary, "hidden_act": "silu", "rms_norm_eps": EPS,
            "max_position_embeddings": 8192, "rope_theta": 10000.0, "rope_scaling": None, "attention_bias": False,
            "mlp_bias": False, "tie_word_embeddings": False,
        }  # fmt: skip
        proposal = {
            "proposal_type": "greedy", "speculative_tokens": 3, "verifier_accept_k": 1, "accept_tolerance": 0.0,
        }  # fmt: skip
        return {
            "architectures": ["Eagle3Speculator"], "speculators_version": "0.9.0", "speculators_model_type": "eagle3",
            "speculators_config": {
                "algorithm": "eagle3", "default_proposal_method": "greedy", "proposal_methods": [proposal],
                "verifier": {"name_or_path": "nobody/nothing", "architectures": ["LlamaForCausalLM"]},
            },
            "tie_word_embeddings": False, "torch_dtype": "float32", "draft_vocab_size": self.drafts,
            "norm_before_residual": False, "norm_before_fc": False, "fc_norm": False, "norm_output": False,
            "target_hidden_size": None, "eagle_aux_hidden_state_layer_ids": [1, 2, 3], "embed_requires_grad": False,
            "transformer_layer_config": layer | {"num_aux_hidden_states": 3},
        }  # fmt: skip

    @property
    def kept(self) -> Tensor:
        """[Vd] the verifier's ids of the draft's tokens: spread over all of its own."""
        return torch.arange(self.drafts) * self.vocabulary // self.drafts

    @property
    def maps(self) -> dict[str, Tensor]:
        marks = torch.zeros(self.vocabulary, dtype=torch.bool).index_fill(0, self.kept, True)
        return {"d2t": self.kept - torch.arange(self.drafts), "t2d": marks}


SHAPES = {
    "SmolLM2 135M": Shape(576, 1536, 9, 3, 64, vocabulary=49152, drafts=8192, tied=True),
    "Llama 3.1 8B": Shape(4096, 14336, 32, 8, 128, vocabulary=128256, drafts=32000, tied=False),
}


def fill(name: str, tensor: Tensor) -> Tensor:
    """With numbers that only the name and the shape decide; states are as large as a norm makes them."""
    random = torch.Generator().manual_seed(crc32(name.encode()))
    with torch.no_grad():
        if tensor.ndim == 1:
            return tensor.uniform_(0.8, 1.2, generator=random)
        return tensor.normal_(0, 1 if name.startswith("states") else tensor.shape[1] ** -0.5, generator=random)


def drawn(name: str, *size: int) -> Tensor:
    return fill(name, torch.empty(size))


def tables(shape: Shape) -> tuple[Tensor, Tensor]:
    """The verifier's embedding and head, [V, H] both."""
    size = shape.vocabulary, shape.hidden
    embedding = drawn("embed_tokens.weight", *size)
    return embedding, embedding if shape.tied else drawn("verifier.lm_head", *size)


class Text:
    """A packed row of T tokens: ``ids`` [T], ``answers`` [T] bool, ``states`` [T, 3 H], ``last`` [T, H], not normed."""

    def __init__(self, work: Work, shape: Shape) -> None:
        self.ids = torch.randint(shape.vocabulary, (work.tokens,), generator=torch.Generator().manual_seed(0))
        self.answers = (torch.arange(work.length) >= work.prompt).repeat(work.documents)
        self.states = drawn("states", work.tokens, 3 * shape.hidden)
        self.last = drawn("states.last", work.tokens, shape.hidden)


class Ours:
    """A call gives the loss and, by step of the chain, the losses that it is the sum of."""

    def __init__(self, work: Work, contender: Contender) -> None:
        from spec_convert.models.contract import VerifierTensors
        from spec_convert.models.draft import build_draft
        from spec_convert.models.eagle3 import Eagle3Draft
        from spec_convert.training.batches.batch import Batch
        from spec_convert.training.losses.mix import Mix
        from spec_convert.training.objectives.chains import ChainObjective, Stage
        from spec_convert.training.objectives.teacher import Teacher
        from spec_convert.unified import UNIFIED, Eagle3Config

        shape = SHAPES[work.shape]
        config, text = UNIFIED.validate_python(shape.config), Text(work, shape)
        assert isinstance(config, Eagle3Config)
        embedding, head = tables(shape)
        with torch.device("meta"):
            empty = Eagle3Draft(config, embed_tokens=embedding, lm_head=None).state_dict()
        tensors = {name: drawn(name, *tensor.shape) for name, tensor in empty.items() if name not in shape.maps}
        self.draft = build_draft(config, tensors | shape.maps, VerifierTensors(embed_tokens=embedding, lm_head=None))
        self.draft.lm_head.requires_grad_(contender.trained)
        self.objective = ChainObjective(
            self.draft,
            Teacher(head, shape.kept),
            [Stage(Mix.parse("forward_kl"))],
            steps=TTT_STEPS,
            decay=1.0,
            detach=False,
            noise=False,
        )
        self.batch = Batch(
            input_ids=text.ids,
            loss_mask=text.answers,
            states=text.states,
            final=F.rms_norm(text.last, text.last.shape[-1:], eps=EPS),
            bounds=tuple(range(0, work.tokens + 1, work.length)),
        )
        self.measured = contender.measured
        self.parameters = list(self.draft.parameters())

    def __call__(self) -> tuple[Tensor, list[float]]:
        share = 1 / self.objective.weights(self.batch)
        loss, sums = self.objective(self.batch, share, measure=self.measured, seed=0)
        return loss, (sums.loss / sums.weight).tolist()


class Theirs:
    """The same. Each row is a token with the state of the one before, as its `shift_batch` makes them."""

    def __init__(self, work: Work, contender: Contender) -> None:
        from speculators.losses import resolve_loss_config
        from speculators.models.eagle3 import Eagle3DraftModel, Eagle3SpeculatorConfig

        shape = SHAPES[work.shape]
        config, text = Eagle3SpeculatorConfig(**shape.config), Text(work, shape)
        config.transformer_layer_config._attn_implementation = "eager"  # its default has no backward on a CPU
        self.model = Eagle3DraftModel(config)
        self.model.load_vocab_mappings(**shape.maps)
        for name, tensor in self.model.named_parameters():
            if not name.startswith("verifier_"):
                fill(name, tensor.data)
        self.model.verifier_lm_head.weight.data.copy_(tables(shape)[1][shape.kept])
        self.model.verifier_norm.weight.data.fill_(1.0)

        def rows(values: Tensor, start: int, stop: int) -> Tensor:
            """These tokens of each document, [1, rows, …]."""
            return values.unflatten(0, (work.documents, work.length))[:, start:stop].flatten(0, 1)[None]

        inside = torch.arange(work.length).repeat(work.documents)
        self.given = {
            "hidden_states": rows(text.states, 0, work.length - 1),
            "input_ids": rows(text.ids, 1, work.length),
            "document_ids": rows(torch.arange(work.documents).repeat_interleave(work.length), 1, work.length),
            "position_ids": rows(inside, 1, work.length),
            "loss_mask": rows(text.answers & (inside < work.length - 1), 1, work.length),
            "verifier_last_hidden_states": rows(text.last, 1, work.length),
        }
        self.chosen = {"ttt_steps": TTT_STEPS, "ttt_step_loss_decay": 1.0}
        self.chosen |= {"loss_config": resolve_loss_config("kl_div", "eager")}
        self.parameters = list(self.model.parameters())

    def __call__(self) -> tuple[Tensor, list[float]]:
        _, loss, metrics = self.model(**self.given, **self.chosen)
        return loss, [float(metrics[f"loss_{step}_sum"]) for step in range(TTT_STEPS)]


def run(work: Work, contender: Contender) -> dict[str, Any]:
    """Time the steps after the first, which makes the moments of AdamW. The losses are those of the first two."""
    compute = (Ours if contender.ours else Theirs)(work, contender)
    optimiser = torch.optim.AdamW([tensor for tensor in compute.parameters if tensor.requires_grad], lr=1e-4)
    resident, seconds, of_cpu, losses = resident_mib(), [], [], []
    for _ in range(1 + work.steps):
        started, worked = time.perf_counter(), time.process_time()
        loss, by_step = compute()
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        seconds.append(time.perf_counter() - started)
        of_cpu.append(time.process_time() - worked)
        losses.append(by_step)
    return {"resident": resident, "seconds": seconds[1:], "of_cpu": of_cpu[1:], "losses": losses[:2]}


def resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


if __name__ == "__main__":
    given_work, given_contender = json.loads(sys.argv[1])
    print(json.dumps(run(Work(**given_work), Contender(**given_contender))))
