"""Answers from transformers in this process, in batches: for machines without vLLM."""

from __future__ import annotations

from collections.abc import Collection, Generator, Iterator, Sequence
from copy import deepcopy
from typing import TYPE_CHECKING, Any

from spec_convert.errors import UsageError
from spec_convert.evaluation.chat import Chat, open_chat
from spec_convert.evaluation.memory import enough_memory
from spec_convert.training.regeneration.conversing import Answer, Asked, Outcome, Sampling, messages
from spec_convert.verifier import Verifier

if TYPE_CHECKING:
    from torch import Tensor

TokenIds = list[int]


class TransformersEngine:
    """A batch is the same conversations whatever was answered before, so that resuming changes no answer."""

    def __init__(self, model: Any, chat: Chat, sampling: Sampling, *, batch: int) -> None:
        """``model``: a causal language model, which computes in its own dtype and on its own device."""
        self._model, self._chat, self._sampling, self._batch = model.eval(), chat, sampling, batch
        said = model.generation_config.eos_token_id
        self._ends = chat.end_ids.union([said] if isinstance(said, int) else said or ())
        self._config = _generation_config(model, sampling, self._ends)
        longest = getattr(model.config.get_text_config(), "max_position_embeddings", None)
        self._longest: int | None = longest if isinstance(longest, int) else None

    def outcomes(self, asked: Sequence[Asked], done: Collection[int]) -> Generator[Outcome, None, None]:
        for first in range(0, len(asked), self._batch):
            batch = asked[first : first + self._batch]
            if any(one.place not in done for one in batch):
                yield from (outcome for outcome in self._converse(batch) if outcome.place not in done)

    def _converse(self, batch: Sequence[Asked]) -> list[Outcome]:
        """Turn after turn of all of them."""
        answers: dict[int, tuple[Answer, ...]] = {one.place: () for one in batch}
        refused: dict[int, str] = {}
        for turn in range(max(len(one.prompt.turns) for one in batch)):
            texts: dict[int, TokenIds] = {}
            for one in batch:
                if turn < len(one.prompt.turns) and one.place not in refused:
                    try:
                        texts[one.place] = self._text(one, answers[one.place])
                    except UsageError as refusal:
                        refused[one.place] = refusal.message
            for some in self._together(texts):
                made = self._answers(list(some.values()), self._sampling.seed_of(next(iter(some)), turn))
                for place, answer in zip(some, made, strict=True):
                    answers[place] += (answer,)
        return [Outcome(one.place, answers[one.place], refused.get(one.place)) for one in batch]

    def _text(self, asked: Asked, answers: Sequence[Answer]) -> TokenIds:
        """The conversation so far. Raises UsageError when the template refuses it, or no answer would fit behind it."""
        token_ids = self._chat.ask(messages(asked.prompt, answers))
        if self._longest is not None and len(token_ids) >= self._longest:
            raise UsageError(f"it has {len(token_ids)} tokens already, and the model reads at most {self._longest}")
        return token_ids

    def _together(self, texts: dict[int, TokenIds]) -> Iterator[dict[int, TokenIds]]:
        """Those with room for a whole answer in one batch; each of the others, which get a shorter one, by itself."""
        roomy = {place: ids for place, ids in texts.items() if self._room(ids) == self._sampling.max_tokens}
        if roomy:
            yield roomy
        yield from ({place: ids} for place, ids in texts.items() if place not in roomy)

    def _room(self, token_ids: TokenIds) -> int:
        wanted = self._sampling.max_tokens
        return wanted if self._longest is None else min(wanted, self._longest - len(token_ids))

    def _answers(self, texts: Sequence[TokenIds], seed: int) -> list[Answer]:
        import torch

        width = max(map(len, texts))
        padding = [width - len(ids) for ids in texts]
        device = self._model.device
        # Any token may stand where the mask says that there is none.
        padded = torch.tensor([[0] * pad + ids for pad, ids in zip(padding, texts, strict=True)], device=device)
        mask = torch.tensor(
            [[0] * pad + [1] * len(ids) for pad, ids in zip(padding, texts, strict=True)], device=device
        )
        config = deepcopy(self._config)
        config.max_new_tokens = self._room([0] * width)
        with torch.inference_mode(), torch.random.fork_rng(), enough_memory("try a lower --concurrent-requests"):
            torch.manual_seed(seed)
            made: Tensor = self._model.generate(padded, attention_mask=mask, generation_config=config)
        return [self._read(ids) for ids in made[:, width:].tolist()]

    def _read(self, token_ids: TokenIds) -> Answer:
        """Up to its first end token, which counts as one of its own, as servers count."""
        end = next((at for at, token in enumerate(token_ids, 1) if token in self._ends), None)
        content = self._chat.text(token_ids[: end - 1] if end else token_ids)
        return Answer(content, "stop" if end else "length", end or len(token_ids))


def open_transformers(verifier: Verifier, sampling: Sampling, *, batch: int) -> TransformersEngine:
    """With the verifier in the dtype of its weights, on the GPU when there is one. Raises UsageError."""
    import torch

    from spec_convert.evaluation.verifier_model import load_model

    name, revision = verifier.name, verifier.files.revision
    chat = open_chat(name, revision=revision)
    model = load_model(name, revision=revision, dtype="auto", device="cuda" if torch.cuda.is_available() else "cpu")
    return TransformersEngine(model, chat, sampling, batch=batch)


def _generation_config(model: Any, sampling: Sampling, ends: Collection[int]) -> Any:
    """The model's own, as servers heed it, with what was asked for. What neither says is off, as with servers."""
    config = deepcopy(model.generation_config)
    config.update(max_length=None, eos_token_id=sorted(ends) or None, pad_token_id=min(ends, default=0))
    if sampling.temperature:
        top_p = config.top_p if sampling.top_p is None else sampling.top_p
        config.update(do_sample=True, temperature=sampling.temperature, top_p=top_p, top_k=config.top_k or 0)
    else:
        config.update(do_sample=False, temperature=None, top_p=None, top_k=None)
    return config
