"""The verifier answers questions and keeps its state of every token: what a draft learns from and is measured on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

if TYPE_CHECKING:
    from torch import Tensor

TOKENS = 64  # at most, of one answer
AT_ONCE = 30  # questions in one batch: more of them would not be faster on two cores


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A question in the verifier's chat template, and the verifier's greedy answer: T tokens together."""

    token_ids: Tensor  # [T]
    states: Tensor  # [T-1, H]: of every token but the last, which nothing follows. After the verifier's final norm
    start: int  # the index of the answer's first token


def ask(verifier: Path, questions: Sequence[str]) -> list[Answer]:
    """The greedy answers of the model in the folder ``verifier``."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # type: ignore[no-untyped-call]  # reading this model takes a second
    model: Any = AutoModelForCausalLM.from_pretrained(verifier, dtype=torch.float32)
    tokenizer: Any = AutoTokenizer.from_pretrained(verifier, padding_side="left")
    answers: list[Answer] = []
    with torch.inference_mode(), tqdm(total=len(questions), unit="answer", disable=None) as bar:
        for first in range(0, len(questions), AT_ONCE):
            asked = [_conversation(question) for question in questions[first : first + AT_ONCE]]
            batch = tokenizer.apply_chat_template(
                asked, add_generation_prompt=True, padding=True, return_tensors="pt", return_dict=True
            )
            made = model.generate(
                **batch, max_new_tokens=TOKENS, do_sample=False, output_hidden_states=True, return_dict_in_generate=True
            )
            states = torch.cat([step[-1] for step in made.hidden_states], dim=1)
            answers += _unpadded(made.sequences, states, batch["attention_mask"], end=tokenizer.eos_token_id)
            bar.update(len(asked))
    return answers


def save(answers: Sequence[Answer], file: Path) -> None:
    import torch

    torch.save([asdict(answer) for answer in answers], file)


def load(file: Path) -> list[Answer]:
    import torch

    return [Answer(**fields) for fields in torch.load(file, weights_only=True)]


def _conversation(question: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": question}]


def _unpadded(sequences: Tensor, states: Tensor, mask: Tensor, *, end: int) -> Iterator[Answer]:
    """Each row of a batch without the padding on its left and without what was made after the end of the answer."""
    width = mask.shape[1]
    for ids, state, padding in zip(sequences, states, (mask == 0).sum(dim=1).tolist(), strict=True):
        ends = (ids[width:] == end).nonzero()
        stop = width + int(ends[0]) + 1 if len(ends) else len(ids)
        yield Answer(
            token_ids=ids[padding:stop].clone(), states=state[padding : stop - 1].clone(), start=width - padding
        )
