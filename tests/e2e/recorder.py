"""Writes down what vLLM's drafter is given and what it answers, in the worker, during a real generation.

`start` and `save` are sent to the worker with `collective_rpc`. In the file, `P.states` are the verifier's states of
proposal P and `P.places` where they stand, `P.drafted` its tokens, and `P.C.x` is of one call of the draft: input ids,
positions, logits, state.
"""

from __future__ import annotations

from typing import Any


def start(worker: Any, text: list[int]) -> None:
    """Record from here on. ``text`` is what the verifier will say, see `_helped`."""
    drafter = worker.model_runner.drafter
    draft = drafter.model
    propose, forward = drafter.propose, draft.forward
    record: dict[str, Any] = {}
    worker.recorded, worker.proposals, worker.calls = record, 0, 0

    def recorded_propose(**given: Any) -> Any:
        number, worker.calls = worker.proposals, 0
        record[f"{number}.states"] = given["target_hidden_states"].clone()
        record[f"{number}.places"] = given["target_positions"].clone()
        drafted = propose(**given)
        record[f"{number}.drafted"] = drafted[0].clone()
        worker.proposals += 1
        last = int(record[f"{number}.{worker.calls - 1}.positions"].max())
        ahead = 1 if drafter.method == "dflash" else 3  # its rows guess their own places; others, two behind
        return _helped(drafted, text, number, begin=last - drafted.shape[1] + ahead)

    def recorded_forward(**given: Any) -> Any:
        answer = forward(**given)
        for_head, fed_back = answer if isinstance(answer, tuple) else (answer, answer)
        call = {
            "input_ids": given["input_ids"],
            "positions": given["positions"],
            "logits": draft.compute_logits(for_head),
            "fed_back": fed_back,
        }
        record.update({f"{worker.proposals}.{worker.calls}.{name}": value.clone() for name, value in call.items()})
        worker.calls += 1
        return answer

    drafter.propose, draft.forward = recorded_propose, recorded_forward


def _helped(drafted: Any, text: list[int], proposal: int, *, begin: int) -> Any:
    """The first tokens of a proposal put right: random drafts are never accepted, and accepted rows must be seen too.

    None of the first proposal, one of the second, and so on until all are right. ``begin``: the first one's place.
    """
    right = proposal % (drafted.shape[1] + 1)
    helped = drafted.clone()
    for place, token in enumerate(text[begin : begin + right]):
        helped[0, place] = token
    return helped


def save(worker: Any, target: str) -> None:
    from safetensors.torch import save_file

    save_file({name: tensor.contiguous() for name, tensor in worker.recorded.items()}, target)
