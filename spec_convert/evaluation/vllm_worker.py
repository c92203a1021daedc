"""One vLLM engine that answers all prompts: `python -m spec_convert.evaluation.vllm_worker`, started by `vllm_process`.

It receives one request. It tells `{"answered": n}` whenever n more answers are complete, and at the end
`{"result": …}` or `{"refused": …}`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from io import StringIO
from itertools import zip_longest
from typing import Any

from spec_convert.serving.worker import Parent

WARM_UP_PROMPTS, WARM_UP_TOKENS = 32, 8
DRAFTS = "vllm:spec_decode_num_drafts"
ACCEPTED = "vllm:spec_decode_num_accepted_tokens_per_pos"

Report = Callable[[int], object]  # called with a number of answers that are complete


def work(request: Mapping[str, Any], report: Report) -> dict[str, Any]:
    """Answer every turn of every conversation.

    ``request``: ``llm`` (arguments of vLLM's `LLM`), ``conversations`` (each ``system`` and ``turns``), ``sampling``
    (arguments of its `SamplingParams`), ``seed``, ``reference`` (the ``answers`` of another run, or None). With a
    reference its answers are the context of later turns, so that each answer continues the same text in both runs, and
    greedy answers are compared with it.
    """
    import torch
    import vllm

    if request["sampling"]["temperature"] and not request["reference"]:
        _refuse_wrong_sampling()
    llm: Any = vllm.LLM(**request["llm"])
    run = Run(llm, request, report)
    run.warm_up()
    run.converse()
    return {
        "answers": [[{"text": one["text"], "token_ids": one["token_ids"]} for one in turns] for turns in run.answers],
        "seconds": run.seconds,
        "drafts": run.drafts,
        "accepted": run.accepted,
        "partings": run.partings() if request["reference"] and not request["sampling"]["temperature"] else None,
        "dtype": str(llm.llm_engine.vllm_config.model_config.dtype).removeprefix("torch."),
        "versions": {"vllm": vllm.__version__, "torch": str(torch.__version__)},
    }


class Refusal(Exception):
    """This vLLM runs, but what it would measure is wrong."""


def _refuse_wrong_sampling() -> None:
    """vLLM's CPU build (0.32) divides the verifier's logits by whatever lies in memory instead of the temperature.

    Almost no drafted token is accepted then, and the text is not the verifier's (vllm pull request 42638). A build is
    judged by what it computes, not by its version.
    """
    import torch
    from vllm.platforms import current_platform

    if not current_platform.is_cpu():
        return
    try:
        current_platform.import_kernels()
        current_platform.register_triton_kernel_overrides()
        from vllm.v1.sample.rejection_sampler import expand_batch_to_tokens
    except (ImportError, AttributeError):
        return  # another vLLM, of which nothing is known
    temperature, ends = torch.tensor([0.5, 0.25]), torch.tensor([2, 3], dtype=torch.int32)
    if expand_batch_to_tokens(temperature, ends, 3).tolist() != [0.5, 0.5, 0.25]:
        raise Refusal("this vLLM samples wrongly when it drafts on the CPU: it loses the temperature")


class Run:
    """Conversations on their way through one engine: turn after turn, each turn of all of them in one batch."""

    def __init__(self, llm: Any, request: Mapping[str, Any], report: Report) -> None:
        self._llm, self._request, self._report = llm, request, report
        self.answers: list[list[dict[str, Any]]] = [[] for _ in request["conversations"]]
        self.seconds, self.drafts = 0.0, 0
        self.accepted: list[int] = []

    def warm_up(self) -> None:
        """Answer a little that does not count: the first run of a kernel is slow. Nothing of it stays cached."""
        from vllm import SamplingParams

        sampling = SamplingParams(temperature=0, max_tokens=WARM_UP_TOKENS)
        first = [self._asked(number, turn=0) for number in range(len(self.answers))][:WARM_UP_PROMPTS]
        self._ask(first, [sampling] * len(first), progress=False)
        self._llm.reset_prefix_cache()

    def converse(self) -> None:
        conversations = self._request["conversations"]
        drafts, accepted = self._counters()
        for turn in range(max(len(one["turns"]) for one in conversations)):
            self._take_turn(turn, [number for number, one in enumerate(conversations) if turn < len(one["turns"])])
        after, accepted_after = self._counters()
        self.drafts = after - drafts
        self.accepted = [now - before for now, before in zip_longest(accepted_after, accepted, fillvalue=0)]

    def _take_turn(self, turn: int, numbers: list[int]) -> None:
        from vllm import SamplingParams

        asked = [self._asked(number, turn) for number in numbers]
        seed = self._request["seed"] + sum(map(len, self.answers))  # of its own for each answer
        sampling = [SamplingParams(**self._request["sampling"], seed=seed + place) for place in range(len(asked))]
        started = time.perf_counter()
        outputs = self._ask(asked, sampling, progress=True)
        self.seconds += time.perf_counter() - started
        for number, output in zip(numbers, outputs, strict=True):
            said = output.outputs[0]
            answer = {"text": said.text, "token_ids": list(said.token_ids), "asked": list(output.prompt_token_ids)}
            self.answers[number].append(answer)

    def _asked(self, number: int, turn: int) -> list[dict[str, str]]:
        """The conversation up to the question of this turn."""
        conversation = self._request["conversations"][number]
        answers = (self._request["reference"] or self.answers)[number]
        messages = [{"role": "system", "content": conversation["system"]}] if conversation["system"] else []
        for question, answer in zip(conversation["turns"][:turn], answers[:turn], strict=True):
            messages += [{"role": "user", "content": question}, {"role": "assistant", "content": answer["text"]}]
        return [*messages, {"role": "user", "content": conversation["turns"][turn]}]

    def _ask(self, asked: list[list[dict[str, str]]], sampling: list[Any], *, progress: bool) -> list[Any]:
        """Through the verifier's chat template; a verifier without one is given plain text."""
        use_tqdm = self._bar if progress else False
        if self._llm.get_tokenizer().chat_template:
            answers: list[Any] = self._llm.chat(asked, sampling, use_tqdm=use_tqdm)
        else:
            texts = ["\n".join(message["content"] for message in messages) for messages in asked]
            answers = self._llm.generate(texts, sampling, use_tqdm=use_tqdm)
        return answers

    def _bar(self, *iterable: Any, **settings: Any) -> Any:
        """What vLLM takes for its progress bars. That of the answers tells the process that waits; none is drawn."""
        if iterable:
            return iterable[0]
        from tqdm import tqdm

        report = self._report

        class Bar(tqdm):  # type: ignore[type-arg]
            def update(self, n: float | None = 1) -> bool | None:
                report(int(n or 0))
                return super().update(n)

        return Bar(**settings, file=StringIO())

    def _counters(self) -> tuple[int, list[int]]:
        """Drafts, and accepted tokens by position, since the engine started; both over all of its replicas."""
        drafts, accepted = 0, [0]
        for metric in self._llm.get_metrics():
            if metric.name == DRAFTS:
                drafts += metric.value
            elif metric.name == ACCEPTED:
                accepted = [a + b for a, b in zip_longest(accepted, metric.values, fillvalue=0)]
        return drafts, accepted

    def partings(self) -> list[dict[str, Any]]:
        """The first token at which each answer is not the reference's, with this engine's logits of both tokens."""
        found = []
        for conversation, answers in enumerate(self.answers):
            for turn, answer in enumerate(answers):
                theirs, own = self._request["reference"][conversation][turn]["token_ids"], answer["token_ids"]
                pairs = enumerate(zip_longest(theirs, own))
                position, pair = next(((at, pair) for at, pair in pairs if pair[0] != pair[1]), (0, None))
                if pair is None:
                    continue
                logits = None if None in pair else self._logits([*answer["asked"], *own[:position]], pair)
                found.append({
                    "conversation": conversation, "turn": turn, "position": position,
                    "with_draft": pair[0], "verifier": pair[1], "logits": logits,
                })  # fmt: skip
        return found

    def _logits(self, token_ids: list[int], pair: tuple[int, int]) -> list[float]:
        """Of two tokens after this text. The engine was started with `logprobs_mode="raw_logits"`."""
        from vllm import SamplingParams

        sampling = SamplingParams(temperature=0, max_tokens=1, logprob_token_ids=list(pair))
        output = self._llm.generate([{"prompt_token_ids": token_ids}], sampling, use_tqdm=False)[0]
        scores = output.outputs[0].logprobs[0]
        return [float(scores[token].logprob) for token in pair]


def main() -> None:
    parent = Parent()
    try:
        result = work(parent.receive(), lambda count: parent.tell(answered=count))
    except Refusal as refusal:
        parent.tell(refused=str(refusal))
    else:
        parent.tell(result=result)


if __name__ == "__main__":
    main()
