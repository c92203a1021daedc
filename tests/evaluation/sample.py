"""Measurements as evaluations find them, and as they had better not: for the tests of what is made of a `Measured`."""

from __future__ import annotations

from dataclasses import replace

from spec_convert.evaluation.measured import Difference, Measured, Speed

TIE = Difference(answer=3, position=41, with_draft=338, verifier=284, logits=(17.340281, 17.340284), tie=True)
WRONG = Difference(answer=11, position=7, with_draft=28, verifier=None, logits=None, tie=False)
HOSTILE = "</h1></script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&amp;\x00\x1b[31m\u202e\ud800\n--"

GREEDY = Measured(
    engine="transformers",
    draft="eagle1_smol135",
    verifier="HuggingFaceTB/SmolLM2-135M-Instruct",
    speculative_tokens=3,
    temperature=0.0,
    prompts=20,
    answers=24,
    drafts=1438,
    accepted=(791, 417, 208),
    alpha=(0.5382, 0.5127, 0.4877),
    with_draft=Speed(tokens=2854, seconds=61.3),
    verifier_alone=Speed(tokens=2853, seconds=92.9),
    differences=(TIE,),
    versions={"spec_convert": "0.1.0", "torch": "2.13.0"},
)
SAMPLED = replace(GREEDY, engine="vllm", temperature=0.7, alpha=None, verifier_alone=None, differences=None)
SIXTEEN = replace(
    GREEDY,
    speculative_tokens=16,
    drafts=1_234_567,
    accepted=tuple(round(1_234_567 * 0.8 ** (place + 1)) for place in range(16)),
    alpha=(*(0.81 for _ in range(15)), None),
    differences=(TIE, WRONG),
)
PERFECT = replace(GREEDY, accepted=(1438,) * 3, alpha=(1.0,) * 3, differences=())
NOTHING = replace(
    GREEDY, prompts=0, answers=0, drafts=0, accepted=(0, 0, 0), alpha=(None,) * 3, differences=(),
    with_draft=Speed(tokens=0, seconds=0.0), verifier_alone=Speed(tokens=0, seconds=0.0),
)  # fmt: skip
UNDER_ATTACK = replace(GREEDY, draft=HOSTILE, verifier=HOSTILE * 3, versions={HOSTILE: HOSTILE})
EVERY = {
    "greedy": GREEDY, "sampled": SAMPLED, "sixteen": SIXTEEN, "perfect": PERFECT, "nothing": NOTHING,
    "attack": UNDER_ATTACK,
}  # fmt: skip
