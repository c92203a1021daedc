"""The verifier's side of speculative decoding: tokens in, logits and the states that its draft wants out."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial
from inspect import signature
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from spec_convert.errors import UsageError
from spec_convert.evaluation.acceptance import require_numbers
from spec_convert.unified import BlockConfig, EagleConfig, EagleMlpConfig, FusedConfig, MtpConfig

if TYPE_CHECKING:
    from spec_convert.models.draft import Config

# A boundary id k is the input of layer k, and the number of layers the output of the last one, before the final norm.
StateId = int | Literal["final"]
ATTENTION = {"full_attention", "sliding_attention", "chunked_attention"}


class Seen(NamedTuple):
    logits: Tensor  # [keep, V]: of the tokens after the last ``keep`` ones read
    states: Tensor  # [T, W]: of each token read, side by side, low to high


def wanted_states(config: Config) -> tuple[StateId, ...]:
    """The states of the verifier that a draft is fed; "final": after the last norm, what the head reads."""
    match config:
        case EagleConfig() | MtpConfig():
            return ("final",)
        case FusedConfig():
            return tuple(config.eagle_aux_hidden_state_layer_ids)
        case BlockConfig():
            return tuple(config.aux_hidden_state_layer_ids)
        case EagleMlpConfig():
            return ()


class VerifierModel:
    """A causal language model of transformers that reads a text in pieces, and can take back the last ones."""

    def __init__(self, model: Any, wanted: Sequence[StateId] = ()) -> None:
        """``model`` is put to use as it is: its dtype, its device. Raises UsageError when it lacks a wanted state."""
        _refuse_recurrent(model)
        self.model, self._wanted = model.eval(), tuple(wanted)
        self._caught: dict[StateId, Tensor] = {}
        for state in self._wanted:
            self._catch(state)
        self._keeps = "logits_to_keep" in signature(model.forward).parameters
        self.restart()

    @property
    def device(self) -> torch.device:
        device: torch.device = self.model.device
        return device

    @property
    def longest(self) -> int | None:
        """How many tokens the model was made for, when its config says so."""
        length = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        return length if isinstance(length, int) else None

    @property
    def end_ids(self) -> frozenset[int]:
        """The tokens that end an answer, by the generation config: one, several or none."""
        said = self.model.generation_config.eos_token_id
        return frozenset([said] if isinstance(said, int) else said or ())

    def restart(self) -> None:
        """Forget the text so far."""
        from transformers import DynamicCache

        # Without the config every layer remembers everything: one with a sliding window could not take tokens back.
        # The window is in the mask.
        self._cache = DynamicCache()

    @torch.inference_mode()
    def read(self, token_ids: Sequence[int], *, keep: int) -> Seen:
        """Read on. ``keep``: for how many of the last tokens the head is computed."""
        logits = self._forward(token_ids, keep, past_key_values=self._cache, use_cache=True)
        states = [self._caught.pop(state)[0] for state in self._wanted]
        return Seen(logits, torch.cat(states, dim=-1) if states else logits.new_empty(len(token_ids), 0))

    def take_back(self, tokens: int) -> None:
        """Forget the last ``tokens`` that were read."""
        if tokens:
            self._cache.crop(-tokens)

    @torch.inference_mode()
    def logits_after(self, token_ids: Sequence[int]) -> Tensor:
        """The logits [V] after a whole text, computed in one pass without the cache, which stays as it is."""
        return self._forward(token_ids, 1, use_cache=False)[0]

    def _forward(self, token_ids: Sequence[int], keep: int, **cache: Any) -> Tensor:
        kept = {"logits_to_keep": keep} if self._keeps else {}
        output = self.model(torch.tensor([list(token_ids)], device=self.device), **cache, **kept)
        logits: Tensor = output.logits[0, -keep:]
        require_numbers(logits, "verifier")
        return logits

    def _catch(self, state: StateId) -> None:
        layers = self.model.config.get_text_config().num_hidden_layers
        if state != "final" and state > layers:
            raise UsageError(
                f"the draft reads the verifier's state {state}, the verifier has {layers} layers",
                hint="name the model that the draft was trained for: --verifier BASE",
            )
        catch_state(self.model, state, partial(self._caught.__setitem__, state))


def catch_state(model: Any, state: StateId, keep: Callable[[Tensor], None]) -> None:
    """Hand each pass's ``state`` [B, T, H] to ``keep``, from a hook on the one module that has it.

    Of a causal language model of transformers; `output_hidden_states` would keep the states of all layers. A boundary
    id up to the number of layers. Raises UsageError when the model's layers cannot be found.
    """
    decoder = model.get_decoder()
    if state == "final":
        decoder.register_forward_hook(lambda _module, _args, made: keep(made.last_hidden_state))
        return
    layers = _layers(decoder, model.config.get_text_config().num_hidden_layers)
    if state == len(layers):
        layers[-1].register_forward_hook(lambda _module, _args, made: keep(_first(made)))
        return

    def before(_module: Any, args: tuple[Any, ...], named: dict[str, Any]) -> None:
        keep(_first(args or named["hidden_states"]))

    layers[state].register_forward_pre_hook(before, with_kwargs=True)


def load_verifier(name: str, config: Config, *, revision: str | None, dtype: str, device: str) -> VerifierModel:
    """The verifier in a folder or on the Hub, with hooks for the states that the draft of ``config`` wants."""
    return VerifierModel(load_model(name, revision=revision, dtype=dtype, device=device), wanted_states(config))


def load_model(name: str, *, revision: str | None, dtype: str, device: str) -> Any:
    """The causal language model of transformers in a folder or on the Hub, complete.

    ``dtype`` "auto": that of its weights. Raises UsageError.
    """
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM
    from transformers.utils.logging import disable_progress_bar

    if not sys.stderr.isatty():
        disable_progress_bar()  # type: ignore[no-untyped-call]
    kind = dtype if dtype == "auto" else getattr(torch, dtype)
    try:
        made: Any = AutoModelForCausalLM.from_pretrained(name, revision=revision, dtype=kind, output_loading_info=True)
    except (ImportError, OSError, ValueError, SafetensorError) as error:
        raise UsageError(
            f"transformers cannot load {name}: {' '.join(str(error).split())}",
            hint="`--verifier` takes a causal language model; `--engine vllm` may know this one",
        ) from error
    model, loading = made
    if missing := sorted(loading["missing_keys"]):  # transformers fills them with random numbers, and warns
        raise UsageError(
            f"{len(missing)} of the weights of {name} are not there, the first {missing[0]}",
            hint="`--verifier` takes the full model that the draft was trained for",
        )
    return model.to(device)


def _layers(decoder: nn.Module, count: int) -> nn.ModuleList:
    """The decoder layers, whatever their name: `layers` in most models, `h` in GPT-2."""
    lists = [child for child in decoder.children() if isinstance(child, nn.ModuleList) and len(child) == count]
    if len(lists) != 1:
        raise UsageError(
            f"cannot tell which part of {type(decoder).__name__} is its {count} layers",
            hint="--engine vllm may know this model",
        )
    return lists[0]


def _first(value: Any) -> Tensor:
    """Layers take and give a tensor, or a tuple that begins with it."""
    tensor: Tensor = value[0] if isinstance(value, tuple) else value
    return tensor


def _refuse_recurrent(model: Any) -> None:
    """States that a rejected token has changed cannot be taken back by cropping a cache."""
    kinds = set(getattr(model.config.get_text_config(), "layer_types", None) or ())
    if getattr(model, "_is_stateful", False) or not kinds <= ATTENTION:
        raise UsageError(
            f"{type(model).__name__} has layers without a key/value cache, which this loop does not know",
            hint="measure with --engine vllm",
        )
