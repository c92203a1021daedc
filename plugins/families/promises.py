"""Tensors that a config says are there, or says are not, against those that the file holds."""

from __future__ import annotations

from collections.abc import Mapping

from spec_convert.checkpoint import Checkpoint
from spec_convert.facts import Facts
from spec_convert.findings import Finding
from spec_convert.rules import found


def broken_promises(facts: Facts, held: Mapping[str, bool]) -> list[Finding]:
    """Keys that are true although the file holds no such tensor, or false although it does; absent ones say nothing."""
    findings = []
    for key, there in held.items():
        said = facts.get(key)
        if said is True and not there:
            message = f"says `{key}` is true, and the file holds no such tensor"
            findings.append(found("missing-tensor", where=facts.where, message=message))
        if said is False and there:
            message = f"says `{key}` is false, and the file holds such tensors"
            findings.append(found("config-contradicts-tensors", where=facts.where, message=message))
    return findings


def layer_biases(checkpoint: Checkpoint) -> dict[str, bool]:
    """What the file holds of the biases that a layer config promises. `attention_bias` includes one on the output."""
    return {
        "attention_bias": any(name.endswith("o_proj.bias") for name in checkpoint),
        "mlp_bias": any(name.endswith(".bias") and ".mlp." in name for name in checkpoint),
    }
