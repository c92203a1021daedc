"""Regenerating with transformers: batches say what each conversation says alone, and what was killed goes on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from spec_convert.cli import run as command_line
from spec_convert.evaluation.chat import open_chat
from spec_convert.evaluation.prompt import Prompt
from spec_convert.training.regeneration.conversing import Asked, Outcome, Sampling
from spec_convert.training.regeneration.transformers_engine import TransformersEngine, open_transformers
from spec_convert.verifier import open_verifier

CHATS = (("Hello", "And then?"), ("What is the time of the day?",), ("A", "B", "C"), ("Why?", "Because of what?"))


def asked(chats: Sequence[Sequence[str]] = CHATS, *, system: str | None = None) -> list[Asked]:
    return [Asked(place, f"chat {place}", Prompt(turns=tuple(chat), system=system)) for place, chat in enumerate(chats)]


def engine(verifier: Path, *, batch: int, **sampling: Any) -> TransformersEngine:
    return open_transformers(open_verifier(verifier), Sampling(**{"max_tokens": 12} | sampling), batch=batch)


def texts(outcomes: Sequence[Outcome]) -> list[list[str]]:
    return [[answer.content for answer in outcome.answers] for outcome in outcomes]


def by_hand(verifier: Path, chat: Sequence[str], tokens: int) -> list[str]:
    """Greedy, one text at a time, one pass a token, without a cache."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(verifier), open_chat(str(verifier), revision=None)
    said: list[dict[str, str]] = []
    for turn in chat:
        said.append({"role": "user", "content": turn})
        ids = tokenizer.ask(said)
        made: list[int] = []
        while len(made) < tokens and (not made or made[-1] != 257):
            with torch.inference_mode():
                made.append(int(model(torch.tensor([ids + made])).logits[0, -1].argmax()))
        said.append({"role": "assistant", "content": tokenizer.text([token for token in made if token != 257])})
    return [message["content"] for message in said if message["role"] == "assistant"]


def test_a_batch_says_what_each_conversation_says_alone(verifier: Path) -> None:
    made = list(engine(verifier, batch=4).outcomes(asked(), ()))
    assert [outcome.place for outcome in made] == [0, 1, 2, 3]
    assert texts(made) == [by_hand(verifier, chat, 12) for chat in CHATS]
    assert texts(made) == texts(list(engine(verifier, batch=1).outcomes(asked(), ())))


def test_an_end_token_ends_an_answer_and_the_limit_cuts_it(verifier: Path) -> None:
    made = engine(verifier, batch=4)
    read, told = made._read, list[list[int]]()
    made._read = lambda token_ids: told.append(token_ids) or read(token_ids)  # type: ignore[func-returns-value]
    first = next(made.outcomes(asked(), ())).answers[0]
    assert (first.finish_reason, first.tokens) == ("length", 12)
    end = told[0][5]  # as if the generation config named a token in the middle of that answer
    made._ends, made._config.eos_token_id = frozenset({end}), end
    again = next(made.outcomes(asked(), ())).answers[0]
    assert (again.finish_reason, again.tokens) == ("stop", told[0].index(end) + 1)
    assert first.content.startswith(again.content)
    assert len(again.content) < len(first.content)


def test_sampled_answers_do_not_depend_on_what_was_answered_before(verifier: Path) -> None:
    sampling = {"temperature": 1.0, "seed": 5}
    whole = list(engine(verifier, batch=2, **sampling).outcomes(asked(), ()))
    torch.manual_seed(99)
    rest = list(engine(verifier, batch=2, **sampling).outcomes(asked(), {0, 1, 2}))
    assert [outcome.place for outcome in rest] == [3]
    assert rest == whole[3:]
    assert texts(whole) != texts(list(engine(verifier, batch=2, temperature=1.0, seed=6).outcomes(asked(), ())))
    assert texts(whole) != texts(list(engine(verifier, batch=2).outcomes(asked(), ())))


def test_nothing_is_sampled_from_fewer_tokens_than_was_asked_for(verifier: Path) -> None:
    """transformers takes the 50 likeliest when nobody says otherwise; servers take all."""
    config = engine(verifier, batch=1, temperature=1.0)._config
    assert (config.do_sample, config.top_k, config.temperature) == (True, 0, 1.0)


def test_what_has_no_room_is_refused_and_what_has_little_is_cut(verifier: Path) -> None:
    """The verifier reads 1024 tokens, and a letter is one."""
    chats = (("x" * 1100,), ("short",), ("y" * 980,), ("z" * 500, "z" * 600))
    made = list(engine(verifier, batch=4, max_tokens=40).outcomes(asked(chats), ()))
    assert "reads at most 1024" in str(made[0].refused)
    assert [answer.tokens for answer in made[1].answers] == [40]
    prompt = len(open_chat(str(verifier), revision=None).ask([{"role": "user", "content": "y" * 980}]))
    assert [(answer.tokens, answer.finish_reason) for answer in made[2].answers] == [(1024 - prompt, "length")]
    assert texts([made[1]]) == [by_hand(verifier, ["short"], 40)]
    assert len(made[3].answers) == 1
    assert made[3].refused


def test_a_template_that_takes_no_system_prompt_refuses_the_conversation(verifier: Path) -> None:
    made = engine(verifier, batch=4)
    refusing = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system here') }}{% endif %}"
    tokenizer = made._chat._tokenizer
    tokenizer.chat_template = refusing + tokenizer.chat_template
    outcomes = [*made.outcomes(asked(system="Be kind."), ()), *made.outcomes(asked(), ())]
    assert ["no system here" in str(outcome.refused) for outcome in outcomes] == [True] * 4 + [False] * 4


def test_the_command_goes_on_where_it_was_killed(
    verifier: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    source, output = tmp_path / "chats.jsonl", tmp_path / "answers.jsonl"
    source.write_text("".join(json.dumps({"turns": chat}) + "\n" for chat in CHATS))
    words = ["regenerate", str(source), str(output), "--verifier", str(verifier), "--engine", "transformers"]
    words += ["--max-tokens", "12", "--concurrent-requests", "2", "--json"]
    assert command_line(words) == 0
    whole = output.read_bytes()
    result = json.loads(capfd.readouterr().out)
    assert (result["conversations"], result["answers"], result["model"]) == (4, 8, str(verifier))
    told = json.loads((tmp_path / "answers.report.json").read_text())
    rows = [json.loads(line) for line in whole.splitlines()]
    output.unlink()
    partial = [{"request": told["request"]}, {"place": 2, "tokens": 1, "row": rows[2]}]
    (tmp_path / "answers.jsonl.partial").write_text("".join(json.dumps(line) + "\n" for line in partial))
    assert command_line(words) == 0
    assert output.read_bytes() == whole


def test_arguments_of_vllm_are_not_ignored(verifier: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "chats.txt").write_text("Hello\n")
    words = [str(tmp_path / "chats.txt"), str(tmp_path / "a.jsonl"), "--verifier", str(verifier)]
    assert command_line(["regenerate", *words, "--engine", "transformers", "--llm-arg", "dtype=float32"]) == 2
    assert "--llm-arg is for vLLM" in capfd.readouterr().err
