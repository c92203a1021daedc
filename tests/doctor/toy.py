"""A verifier that says what a rule says, and drafts that really learned to guess it: all small enough for seconds.

The next word depends on the last two and on the one four before the last. So a draft needs the word that it is given,
the verifier's states, and attention by position: whatever is broken about one of them, it guesses wrong.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from spec_convert.cli import run
from spec_convert.training import training
from spec_convert.training.settings import TrainSettings
from spec_convert.training.store.sample import Sample

from ..training.small import write_prepared

LAYERS, HIDDEN, VOCABULARY, LAG = 6, 48, 32, 4
WORDS = [word for word in range(VOCABULARY) if word % 4 != 2]  # those that are said
FED = (2, 4, 5)
LENGTH = 52


def rule(words: Tensor, tables: Tensor) -> Tensor:
    """The next place in WORDS after each text of places [B, T]."""
    return (tables[0][words[:, -1]] + tables[1][words[:, -2]] + 1.4 * tables[2][words[:, -1 - LAG]]).argmax(dim=-1)


def texts(count: int, length: int, *, seed: int) -> Tensor:
    """Texts of the rule as token ids [count, length]; one word in five is any."""
    tables = torch.randn(3, len(WORDS), len(WORDS), generator=torch.Generator().manual_seed(1))
    generator = torch.Generator().manual_seed(seed)
    words = torch.randint(len(WORDS), (count, LAG + 1), generator=generator)
    while words.shape[1] < length:
        any_word = torch.randint(len(WORDS), (count,), generator=generator)
        said = torch.where(torch.rand(count, generator=generator) < 0.2, any_word, rule(words, tables))
        words = torch.cat((words, said[:, None]), dim=1)
    return torch.tensor(WORDS)[words]


def write_verifier(folder: Path, *, steps: int = 280, seed: int = 3) -> Path:
    """A Llama that has learned the rule. The weights of its final norm are far from one, so that they are seen."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        hidden_size=HIDDEN, intermediate_size=96, num_hidden_layers=LAYERS, num_attention_heads=2,
        num_key_value_heads=1, head_dim=24, vocab_size=VOCABULARY, max_position_embeddings=512, initializer_range=0.05,
        tie_word_embeddings=False, bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
        torch.nn.init.uniform_(model.model.norm.weight, 0.3, 4.0)
        optimiser = torch.optim.AdamW(model.parameters(), lr=4e-3, betas=(0.9, 0.95), weight_decay=0.0)
        rates = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, total_steps=steps)
        for step in range(steps):
            tokens = texts(16, LENGTH, seed=seed * steps + step)
            logits = model(tokens).logits[:, LAG:-1]
            loss = F.cross_entropy(logits.flatten(0, 1), tokens[:, LAG + 1 :].flatten())
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            rates.step()
    model.save_pretrained(folder)
    _write_tokenizer(folder)
    return folder


def _write_tokenizer(folder: Path) -> None:
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(WordLevel({f"w{number}": number for number in range(VOCABULARY)}, unk_token="w0"))
    words.pre_tokenizer = WhitespaceSplit()
    fast = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="w0")
    fast.chat_template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    fast.save_pretrained(folder)


def write_questions(file: Path) -> Path:
    """The beginnings of texts that nobody learned from."""
    lines = [" ".join(f"w{word}" for word in text) for text in texts(16, 12, seed=7).tolist()]
    file.write_text("\n".join(lines))
    return file


def write_states(folder: Path, verifier: Path) -> Path:
    rows = texts(400, LENGTH, seed=5)
    samples = [
        Sample(index=number, input_ids=row.clone(), loss_mask=torch.arange(LENGTH) > LAG)
        for number, row in enumerate(rows)
    ]
    prepared = write_prepared(folder / "prepared", verifier, samples).folder
    flags = ["--engine", "transformers", "--layers", ",".join(map(str, (*FED, LAYERS))), "--dtype", "float32"]
    assert run(["-q", "generate", str(prepared), str(folder / "states"), *flags]) == 0
    return folder / "states"


def train(kind: str, verifier: Path, states: Path, folder: Path, **more: Any) -> Path:
    """The unified directory of a draft of this kind, trained on the states."""
    settings: dict[str, Any] = {
        "draft": kind, "verifier_name_or_path": str(verifier), "data_path": states, "save_path": folder,
        "total_seq_len": 6 * LENGTH, "lr": 4e-3, "dtype": "float32",
    }  # fmt: skip
    trained = training.train(TrainSettings(**settings | more))
    assert trained.draft is not None
    return trained.draft


def learn_before_norm(draft: Path, verifier: Path, *, steps: int = 250) -> dict[str, Tensor]:
    """The tensors of an EAGLE-1 draft that learns the verifier's states before its final norm, one from another.

    From such a state the head guesses only behind that norm. The draft at ``draft`` is what it begins with.
    """
    from transformers import LlamaForCausalLM

    from spec_convert import load_draft
    from spec_convert.evaluation.verifier_model import catch_state

    model, learner = LlamaForCausalLM.from_pretrained(verifier), load_draft(draft, verifier=verifier)
    kept: list[Tensor] = []
    catch_state(model, LAYERS, kept.append)
    optimiser = torch.optim.AdamW([one for one in learner.parameters() if one.requires_grad], lr=3e-3)
    for step in range(steps):
        tokens = texts(12, LENGTH, seed=1000 + step)
        with torch.no_grad():
            said = model(tokens).logits.softmax(dim=-1)
        state = kept.pop()
        guessed = learner.states(tokens[:, 1:], state[:, :-1]).hidden_states[:, LAG:]
        unlike = F.cross_entropy(
            model.lm_head(model.model.norm(guessed)).flatten(0, 1), said[:, 1 + LAG :].flatten(0, 1)
        )
        loss = F.smooth_l1_loss(guessed, state[:, 1 + LAG :]) + 0.1 * unlike
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return {name: tensor.detach().clone() for name, tensor in learner.state_dict().items()}


def write_with_other_channels(verifier: Path, folder: Path) -> Path:
    """A verifier that says the same, token by token, with its channels in another order: its states fit no draft."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(verifier, folder)
    order = torch.randperm(HIDDEN, generator=torch.Generator().manual_seed(9))
    tensors = load_file(verifier / "model.safetensors")
    made_of_rows = ("o_proj.weight", "down_proj.weight", "norm.weight")  # what they give is a state
    for name, tensor in tensors.items():
        tensors[name] = tensor[order] if name.endswith(made_of_rows) else tensor[:, order]
    save_file(
        {name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "model.safetensors", {"format": "pt"}
    )
    return folder
