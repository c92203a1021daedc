"""Whether a checkpoint and a vLLM model fit, by name: vLLM's own loader drops unknown biases and misses no tensor."""

from __future__ import annotations

from collections.abc import Collection, Iterable

# vLLM multiplies by these matrices at once, so it holds them as one parameter.
STACKED = {"qkv_proj": ("q_proj", "k_proj", "v_proj"), "gate_up_proj": ("gate_proj", "up_proj")}


def strictly(given: Collection[str], parameters: Iterable[str], *, shared: Iterable[str] = ()) -> None:
    """Raises ValueError unless each tensor has its parameter and each parameter its tensors.

    ``parameters`` are named as the checkpoint's tensors are, except that `STACKED` ones come in parts there.
    ``shared``: what the verifier lends when the checkpoint has none of its own.
    """
    wanted = {part for name in parameters for part in parts(name)}
    missing = wanted - set(given) - set(shared)
    unknown = set(given) - wanted
    if missing or unknown:
        said = [f"no tensor for {', '.join(sorted(missing))}"] if missing else []
        said += [f"no parameter for {', '.join(sorted(unknown))}"] if unknown else []
        raise ValueError(
            f"the draft's checkpoint does not fit its config.json: {'; '.join(said)}. "
            "`spec-convert validate` says what is wrong with it"
        )


def parts(name: str) -> list[str]:
    """The names under which a checkpoint holds a parameter of vLLM's."""
    for stacked, names in STACKED.items():
        if f".{stacked}." in name:
            return [name.replace(f".{stacked}.", f".{part}.") for part in names]
    return [name]
