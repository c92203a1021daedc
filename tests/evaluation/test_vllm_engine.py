"""What is asked of vLLM and what is made of its answers.

A real vLLM does all of this in tests/e2e. Here a stand-in takes its place, so that each detail can be looked at.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from spec_convert.errors import UsageError
from spec_convert.evaluation import vllm_engine, vllm_process, vllm_worker
from spec_convert.evaluation.measured import Difference
from spec_convert.evaluation.prompt import Prompt
from spec_convert.servable import Servable, servable
from spec_convert.serving import versions

PROMPTS = [Prompt(turns=("one", "two"), system="brief"), Prompt(turns=("three",))]
END = 0


class StandIn:
    """As much of vLLM's `LLM` as is used. It answers with `reply`, and counts four drafts for each answer."""

    def __init__(self, **arguments: Any) -> None:
        self.arguments = arguments
        self.asked: list[Any] = []
        self.template: str | None = "a template"
        self.drafts = 0
        self.caches_reset = 0
        self.llm_engine = SimpleNamespace(vllm_config=SimpleNamespace(model_config=SimpleNamespace(dtype="torch.half")))

    def reply(self, text: str) -> list[int]:
        return [len(text), 7, END]

    def get_tokenizer(self) -> Any:
        return SimpleNamespace(chat_template=self.template)

    def reset_prefix_cache(self) -> None:
        self.caches_reset += 1

    def chat(self, asked: list[Any], sampling: list[Any], *, use_tqdm: Any) -> list[Any]:
        self.asked.append((asked, sampling))
        self.drafts += 4 * len(asked)
        if use_tqdm:
            assert list(use_tqdm([1, 2], desc="rendering")) == [1, 2]
            bar = use_tqdm(total=len(asked), desc="Processed prompts", dynamic_ncols=True, postfix="")
            bar.update(len(asked))
            assert (bar.n, bar.format_dict["elapsed"] > 0) == (len(asked), True)
            bar.close()
        return [self._answer(messages[-1]["content"]) for messages in asked]

    def _answer(self, text: str) -> Any:
        said = SimpleNamespace(text=f"re: {text.splitlines()[-1]}", token_ids=self.reply(text))
        return SimpleNamespace(outputs=[said], prompt_token_ids=[100, len(text)])

    def generate(self, prompts: list[Any], sampling: Any, *, use_tqdm: Any) -> list[Any]:
        self.asked.append((prompts, sampling))
        if isinstance(prompts[0], str):
            return [self._answer(text) for text in prompts]
        scores = {token: SimpleNamespace(logprob=token / 4) for token in sampling.logprob_token_ids}
        return [SimpleNamespace(outputs=[SimpleNamespace(logprobs=[scores])])]

    def get_metrics(self) -> list[Any]:
        return [  # two replicas, and a counter that is none of ours
            SimpleNamespace(name=vllm_worker.DRAFTS, value=self.drafts),
            SimpleNamespace(name=vllm_worker.DRAFTS, value=1),
            SimpleNamespace(name=vllm_worker.ACCEPTED, values=[self.drafts // 2, self.drafts // 4]),
            SimpleNamespace(name=vllm_worker.ACCEPTED, values=[1, 0]),
            SimpleNamespace(name="vllm:prompt_tokens", value=1000),
        ]


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch) -> list[StandIn]:
    """The engines that are started from now on; `StandIn` is what they are."""
    started: list[StandIn] = []

    def start(**arguments: Any) -> StandIn:
        started.append(StandIn(**arguments))
        return started[-1]

    stand_in: Any = ModuleType("vllm")
    stand_in.__version__, stand_in.LLM, stand_in.SamplingParams = "0.32.0", start, SimpleNamespace
    platforms: Any = ModuleType("vllm.platforms")
    platforms.current_platform = SimpleNamespace(is_cpu=lambda: False)
    for module in (stand_in, platforms):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return started


def request(**changes: Any) -> dict[str, Any]:
    conversations = [{"system": prompt.system, "turns": list(prompt.turns)} for prompt in PROMPTS]
    sampling = {"temperature": 0, "max_tokens": 9}
    return {
        "llm": {}, "conversations": conversations, "sampling": sampling, "seed": 40, "reference": None, **changes
    }  # fmt: skip


def test_each_turn_is_one_batch_that_continues_the_own_answers(engines: list[StandIn]) -> None:
    told: list[int] = []
    result = vllm_worker.work(request(llm={"model": "m"}), told.append)
    [engine] = engines
    assert engine.arguments == {"model": "m"}
    (_, warm), (first, sampling), (second, later) = engine.asked
    assert {one.max_tokens for one in warm} == {vllm_worker.WARM_UP_TOKENS}
    assert first == [
        [{"role": "system", "content": "brief"}, {"role": "user", "content": "one"}],
        [{"role": "user", "content": "three"}],
    ]
    assert second == [[*first[0], {"role": "assistant", "content": "re: one"}, {"role": "user", "content": "two"}]]
    assert [vars(one) for one in sampling] == [{"temperature": 0, "max_tokens": 9, "seed": seed} for seed in (40, 41)]
    assert [one.seed for one in later] == [42]
    assert [[answer["token_ids"] for answer in turns] for turns in result["answers"]] == [
        [[3, 7, END], [3, 7, END]],
        [[5, 7, END]],
    ]
    assert told == [2, 1]


def test_the_warm_up_is_neither_counted_nor_cached(engines: list[StandIn]) -> None:
    result = vllm_worker.work(request(), lambda _: None)
    assert engines[0].caches_reset == 1
    assert (result["drafts"], result["accepted"]) == (12, [6, 3])  # three answers of four drafts each
    assert result["dtype"] == "half"


def test_a_verifier_without_a_chat_template_is_given_plain_text(
    engines: list[StandIn], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(StandIn, "get_tokenizer", lambda self: SimpleNamespace(chat_template=None))
    vllm_worker.work(request(), lambda _: None)
    assert [asked for asked, _ in engines[0].asked][1:] == [["brief\none", "three"], ["brief\none\nre: one\ntwo"]]


def test_the_second_run_answers_the_same_conversation_and_says_where_it_parts(engines: list[StandIn]) -> None:
    reference = [
        [{"text": "theirs", "token_ids": [3, 8, END]}, {"text": "", "token_ids": [3, 7, END]}],
        [{"text": "", "token_ids": [5, 7]}],
    ]
    result = vllm_worker.work(request(reference=reference), lambda _: None)
    second, _ = engines[0].asked[2]
    assert {"role": "assistant", "content": "theirs"} in second[0]
    assert result["partings"] == [
        {"conversation": 0, "turn": 0, "position": 1, "with_draft": 8, "verifier": 7, "logits": [2.0, 1.75]},
        {"conversation": 1, "turn": 0, "position": 2, "with_draft": None, "verifier": END, "logits": None},
    ]
    ((prompt,), sampling) = engines[0].asked[-1]
    assert prompt == {"prompt_token_ids": [100, 3, 3]}  # the question, and the text that both answers share
    assert (sampling.max_tokens, sampling.logprob_token_ids) == (1, [8, 7])


@pytest.mark.parametrize(("kept", "right"), [([0.5, 0.5, 0.25], True), ([5.9e16, 4.5e-41, 0.25], False)])
def test_a_cpu_build_is_asked_whether_it_samples_right(
    engines: list[StandIn], monkeypatch: pytest.MonkeyPatch, kept: list[float], right: bool
) -> None:
    platforms: Any = ModuleType("vllm.platforms")
    platforms.current_platform = SimpleNamespace(
        is_cpu=lambda: True, import_kernels=lambda: None, register_triton_kernel_overrides=lambda: None
    )
    sampler: Any = ModuleType("vllm.v1.sample.rejection_sampler")
    sampler.expand_batch_to_tokens = lambda *args: SimpleNamespace(tolist=lambda: kept)
    for module in (platforms, sampler):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    sampled = request(sampling={"temperature": 0.7, "max_tokens": 9})
    if right:
        assert vllm_worker.work(sampled, lambda _: None)["partings"] is None
    else:
        with pytest.raises(vllm_worker.Refusal):
            vllm_worker.work(sampled, lambda _: None)
        assert engines == []


def test_sampled_text_is_not_compared(engines: list[StandIn]) -> None:
    sampled = request(sampling={"temperature": 0.7, "max_tokens": 9})
    reference = vllm_worker.work(sampled, lambda _: None)["answers"]
    assert vllm_worker.work(sampled | {"reference": reference}, lambda _: None)["partings"] is None


# From here on: what is made of the worker's results


@pytest.fixture
def drafted(eagle3: Callable[..., Any]) -> Servable:
    return servable(eagle3().convert().output)


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the worker is asked for: it always answers the same, here in bfloat16."""
    seen: list[dict[str, Any]] = []
    answers = [[answer_of(1, 2, 3), answer_of(1, 2, 3, 4, 5)], [answer_of(6)]]

    def run(request: Mapping[str, Any], *, on_progress: Callable[[int], object], verbose: bool) -> dict[str, Any]:
        seen.append(dict(request))
        parting = {"conversation": 1, "turn": 0, "position": 0, "with_draft": 5, "verifier": 6, "logits": [20.0, 20.25]}
        return {
            "answers": answers, "seconds": 2.0 * len(seen), "drafts": 5, "accepted": [4, 2], "dtype": "bfloat16",
            "partings": [parting] if request["reference"] else None, "versions": {"vllm": "0.32.0"},
        }  # fmt: skip

    monkeypatch.setattr(vllm_process, "run", run)
    monkeypatch.setattr(versions, "installed", lambda: "0.32.0")
    return seen


def answer_of(*tokens: int) -> dict[str, Any]:
    return {"text": "text", "token_ids": list(tokens)}


def measure(drafted: Servable, **changes: Any) -> Any:
    settings: dict[str, Any] = {
        "max_tokens": 9, "speculative_tokens": None, "temperature": 0.0, "seed": 0, "alone": True
    }  # fmt: skip
    return vllm_engine.measure(drafted, PROMPTS, **settings | changes)


def test_both_runs_are_asked_for_the_same_with_and_without_the_draft(
    drafted: Servable, requests: list[dict[str, Any]]
) -> None:
    measured = measure(drafted, dtype="bfloat16", llm_args={"max_model_len": 64})
    first, second = requests
    common = {"dtype": "bfloat16", "max_model_len": 64, "disable_log_stats": False}
    assert first["llm"] == common | {"model": drafted.draft}
    assert second["llm"] == common | {"model": drafted.verifier.name, "logprobs_mode": "raw_logits"}
    assert (first["reference"], second["reference"]) == (None, requests[1]["reference"])
    assert second["reference"][1] == [answer_of(6)]
    assert (measured.drafts, measured.accepted, measured.answers, measured.prompts) == (5, (4, 2, 0), 3, 2)
    assert (measured.with_draft.tokens_per_second, measured.verifier_alone.tokens_per_second) == (9 / 2, 9 / 4)
    assert measured.alpha is None


@pytest.mark.parametrize(("temperature", "alone"), [(0.0, False), (0.5, True)])
def test_what_was_not_compared_has_no_verdict(
    drafted: Servable, requests: list[dict[str, Any]], temperature: float, alone: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if temperature:  # the worker compares nothing then
        run = vllm_process.run
        monkeypatch.setattr(vllm_process, "run", lambda *args, **named: run(*args, **named) | {"partings": None})
    measured = measure(drafted, temperature=temperature, alone=alone)
    assert (len(requests), measured.lossless) == (2 if alone else 1, None)
    assert (measured.verifier_alone is None) == (not alone)


def test_a_difference_within_the_rounding_of_the_dtype_is_a_tie(
    drafted: Servable, requests: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    tie = Difference(answer=2, position=0, with_draft=5, verifier=6, logits=(20.0, 20.25), tie=True)
    measured = measure(drafted)
    assert (measured.differences, measured.lossless) == ((tie,), True)
    run = vllm_process.run
    monkeypatch.setattr(vllm_process, "run", lambda *args, **named: run(*args, **named) | {"dtype": "float32"})
    measured = measure(drafted)
    assert ([found.tie for found in measured.differences], measured.lossless) == ([False], False)


def test_a_vllm_that_counts_nothing_is_not_taken_for_a_bad_draft(
    drafted: Servable, requests: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = vllm_process.run
    nothing = {"drafts": 0, "accepted": [0]}
    monkeypatch.setattr(vllm_process, "run", lambda *args, **named: run(*args, **named) | nothing)
    with pytest.raises(UsageError, match="does not say how many drafts"):
        measure(drafted)
    assert measure(drafted, speculative_tokens=4).drafts == 0  # answers of five tokens may come without one


@pytest.mark.parametrize("name", ["model", "speculative_config", "dtype", "disable_log_stats", "logprobs_mode"])
def test_an_argument_that_would_falsify_the_measurement_is_refused(
    drafted: Servable, requests: list[dict[str, Any]], name: str
) -> None:
    with pytest.raises(UsageError, match=f"`{name}`"):
        measure(drafted, llm_args={name: None})
    assert requests == []


def test_without_vllm_the_message_says_how_to_get_it(drafted: Servable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "installed", lambda: None)
    with pytest.raises(UsageError, match="vLLM is not installed") as refused:
        measure(drafted)
    assert refused.value.hint == versions.INSTALL
