"""Which rows of its block a row sees: layer types, the window of the sliding ones, and what they show of later rows.

In full layers every row sees the whole block. In sliding layers a row sees those before it, unless the config says
otherwise: so SpecForge trains them and vLLM reads the layout. The word for it is `is_causal` (NeMo) or `causal`
(ModelOpt), for all layers; unified configs have one for the sliding layers alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from spec_convert.errors import Refused
from spec_convert.facts import Facts
from spec_convert.findings import Finding
from spec_convert.rules import found

FULL, SLIDING = "full_attention", "sliding_attention"
NON_CAUSAL = "sliding_window_non_causal"
UNDERSTOOD = frozenset({"layer_types", "use_sliding_window"})  # of the keys that have no place in other unified configs


@dataclass(frozen=True, kw_only=True)
class Windows:
    """What the layers show their rows. Whether ``types`` are types, one a layer, is the word of the unified model."""

    types: Any
    window: Any
    non_causal: bool

    @property
    def layer(self) -> dict[str, Any]:
        return {"layer_types": self.types, "sliding_window": self.window}


def as_published(config: Facts, layers: int) -> Windows:
    """Read as vLLM reads the layout; ``config`` holds what stands in `dflash_config` as well."""
    types = _types(config, layers)
    slides = config.get("use_swa") is True  # ModelOpt: every layer, whatever their types say
    if slides and SLIDING not in types:
        types = [SLIDING] * layers
    if SLIDING in types and config.get("use_sliding_window") is False and not slides:
        message = "has layers of type sliding_attention, and `use_sliding_window` is false"
        raise Refused([found("config-contradicts-itself", where=config.where, message=message)])
    key = next((key for key in ("is_causal", "causal") if config.has(key)), None)
    causal = config.require({key: bool})[key] if key else SLIDING in types
    if causal and key and FULL in types:
        message = f"`{key}` is true: rows of full layers would see only those before them, which no unified config says"
        raise Refused([found("not-representable", where=config.where, message=message)])
    return Windows(types=types, window=_window(config, types), non_causal=not causal)


def as_unified(layer: Facts, config: Facts, layers: int) -> Windows:
    """Without sliding layers the word for them says nothing, and only "true" keeps vLLM from applying it to others."""
    types = _types(layer, layers)
    non_causal = config.require({NON_CAUSAL: bool})[NON_CAUSAL] if SLIDING in types else True
    return Windows(types=types, window=_window(layer, types), non_causal=non_causal)


def mistaken(windows: Windows, kind: str) -> list[Finding]:
    """A stock vLLM has one word for all layers of a DFlash draft, and none for a DSpark draft."""
    if SLIDING not in windows.types:
        return []
    if kind == "dflash" and FULL in windows.types and not windows.non_causal:
        message = "a stock vLLM lets the rows of full layers see only those before them, as those of sliding layers do"
    elif kind == "dspark" and windows.non_causal:
        message = "a stock vLLM lets the rows of sliding layers see only those before them"
    else:
        return []
    return [found("windows-need-the-plugin", where=f"config.json: {NON_CAUSAL}", message=message)]


def _types(facts: Facts, layers: int) -> Any:
    if facts.has("layer_types"):
        return facts.require({"layer_types": list})["layer_types"]
    if facts.get("use_sliding_window") is True:
        message = "`use_sliding_window` is true and no `layer_types` says of which layers"
        raise Refused([found("not-representable", where=facts.where, message=message)])
    return [FULL] * layers


def _window(facts: Facts, types: Any) -> Any:
    return facts.first(["swa_window_size", "sliding_window"], int) if SLIDING in types else None
