"""Every damaged checkpoint, with every command: nothing runs, nothing outside is read, nothing hangs or crashes."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import pytest

from .corpus import CASES, KEYS
from .making import EAGLE, EAGLE3, Case
from .sandbox import Job, Ran, watch
from .warm import commands, warm_up

VERIFIERS = [EAGLE / "verifier", EAGLE3 / "verifier"]


def job(name: str, case: Case, folder: Path) -> Job:
    return Job(name, str(folder), commands(case.place(folder), case.base, few=case.few))


@pytest.fixture(scope="module")
def ran(cases: Path) -> dict[str, list[Ran]]:
    """What the commands did with each case, all in one process."""
    made = CASES | {name: Case(make, None, base, few=True) for name, (make, base) in KEYS.items()}
    jobs = [job(name, case, cases / str(number)) for number, (name, case) in enumerate(made.items())]
    ran: dict[str, list[Ran]] = {}
    for one in watch([warm_up(), *jobs], cases / "sandbox", readable=VERIFIERS):
        ran.setdefault(one.name, []).append(one)
    return ran


def refused(ran: Iterable[Ran]) -> list[str]:
    """The rules that `validate` says are broken."""
    said = next(one for one in ran if one.command[0] == "validate")
    return [finding["rule"] for finding in json.loads(said.out)["findings"] if finding["level"] == "error"]


@pytest.mark.parametrize("name", CASES)
def test_it_is_refused_for_the_right_reason_and_nothing_else_happens(name: str, ran: dict[str, list[Ran]]) -> None:
    rule = CASES[name].rule
    for one in ran[name]:
        assert one.violations == [], one.told
        if rule is not None and one.command[0] == "convert":
            assert one.code in (1, 2), one.told
    if rule is not None:
        assert rule in refused(ran[name]), ran[name][-1].told


def test_no_value_of_any_config_key_breaks_validation(ran: dict[str, list[Ran]]) -> None:
    broken = [f"{one.violations} {one.told}" for name in KEYS for one in ran[name] if one.violations]
    assert broken == [], "\n".join(broken[:10])


def test_a_value_that_no_server_could_use_is_refused(ran: dict[str, list[Ran]]) -> None:
    """Proves that the values above arrive: a config that is read otherwise would break nothing."""
    for name in ("hidden_size is 10^18", "num_attention_heads is zero", "vocab_size is text", "rms_norm_eps is NaN"):
        assert refused(ran[f"_control_eagle3: {name}"]), name
