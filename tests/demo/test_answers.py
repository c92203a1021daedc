"""What the demo keeps of a verifier's answers, checked with a tiny model of transformers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from spec_convert.demo import answers

transformers = pytest.importorskip("transformers")

WORDS = ["<end>", *"abcdefgh", "ask", "say"]
TEMPLATE = (
    "{% for message in messages %}{{ 'ask ' + message['content'] + ' ' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'say' }}{% endif %}"
)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = Tokenizer(models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="<end>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=words, eos_token="<end>", pad_token="<end>", chat_template=TEMPLATE
    )
    tokenizer.save_pretrained(tmp_path)
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=len(WORDS), hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, bos_token_id=0, eos_token_id=0, pad_token_id=0, initializer_range=0.5,
    )  # fmt: skip
    transformers.LlamaForCausalLM(config).save_pretrained(tmp_path)
    return tmp_path


def test_answers_and_states_are_those_of_each_question_on_its_own(model: Path) -> None:
    asked = answers.ask(model, ["a", "b c d e", "f g"])
    verifier = transformers.LlamaForCausalLM.from_pretrained(model).eval()
    assert [answer.start for answer in asked] == [3, 6, 4]
    for answer in asked:
        with torch.inference_mode():
            seen = verifier(answer.token_ids[None], output_hidden_states=True)
        assert answer.token_ids[answer.start :].tolist() == seen.logits[0, answer.start - 1 : -1].argmax(-1).tolist()
        torch.testing.assert_close(answer.states, seen.hidden_states[-1][0, :-1], rtol=1e-4, atol=1e-4)


def test_an_answer_stops_at_its_end_token(model: Path) -> None:
    asked = answers.ask(model, list("abcdefgh"))
    for answer in asked:
        said = answer.token_ids[answer.start :].tolist()
        assert said.index(0) == len(said) - 1 if 0 in said else len(said) == answers.TOKENS
    assert any(len(answer.token_ids) - answer.start < answers.TOKENS for answer in asked)


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    kept = answers.Answer(token_ids=torch.arange(5), states=torch.randn(4, 3), start=2)
    answers.save([kept], tmp_path / "kept.pt")
    (loaded,) = answers.load(tmp_path / "kept.pt")
    assert torch.equal(loaded.states, kept.states)
    assert (loaded.token_ids.tolist(), loaded.start) == (kept.token_ids.tolist(), kept.start)
