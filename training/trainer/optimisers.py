"""AdamW, or Muon for the matrices inside the draft with AdamW for the rest, behind one face."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.optim import AdamW, Optimizer

from spec_convert.errors import UsageError
from spec_convert.training.trainer.plan import Plan
from spec_convert.training.trainer.wrapping import whole_number

TABLES = frozenset({"lm_head", "embed_tokens", "embeddings"})  # a row a token: they turn no state into another


class Optimiser:
    """All trainable parameters, by name. Its moments exist from the start, so that they can be read into."""

    def __init__(self, parameters: Mapping[str, Tensor], plan: Plan) -> None:
        self._lr = plan.lr
        self._clip = plan.clip
        self._parameters = {name: tensor for name, tensor in parameters.items() if tensor.requires_grad}
        of_muon = [
            name for name in self._parameters if plan.optimiser == "muon" and _turns(name, self._parameters[name])
        ]
        rest = [name for name in self._parameters if name not in of_muon]
        self._optimisers = [self._adamw(rest, plan)] if rest else []
        if of_muon:
            self._optimisers.append(self._muon(of_muon, plan))
        self._begin()

    def step(self, scale: float) -> None:
        """One step at ``scale`` times the learning rate, after which there are no gradients."""
        for optimiser in self._optimisers:
            for group in optimiser.param_groups:
                group["lr"] = self._lr * scale
            optimiser.step()
        self.clear()

    def clear(self) -> None:
        """Forget the gradients."""
        for tensor in self._parameters.values():
            tensor.grad = None

    def clipped_norm(self) -> float:
        """The norm of all gradients together, which are then scaled down where it was too large."""
        gradients = [tensor.grad for tensor in self._parameters.values() if tensor.grad is not None]
        norm = get_total_norm(gradients)
        if self._clip is not None:
            clip_grads_with_norm_(self._parameters.values(), self._clip, norm)
        return whole_number(norm)

    def moments(self) -> dict[str, Tensor]:
        """Everything that is remembered of a parameter, by `parameter/moment`: writing into them changes them."""
        return {
            f"{name}/{moment}": value
            for name, tensor in self._parameters.items()
            for optimiser in self._optimisers
            for moment, value in optimiser.state.get(tensor, {}).items()
        }

    def _adamw(self, names: list[str], plan: Plan) -> Optimizer:
        decaying = [self._parameters[name] for name in names if self._parameters[name].ndim > 1]
        others = [self._parameters[name] for name in names if self._parameters[name].ndim <= 1]
        groups = [{"params": decaying, "weight_decay": plan.weight_decay}, {"params": others, "weight_decay": 0.0}]
        return AdamW([group for group in groups if group["params"]], lr=plan.lr, betas=plan.betas)

    def _muon(self, names: list[str], plan: Plan) -> Optimizer:
        """Updates as large as AdamW's (arXiv 2502.16982), so that one learning rate serves both."""
        if not hasattr(torch.optim, "Muon"):
            raise UsageError(f"torch {torch.__version__} has no Muon", hint="pip install 'torch>=2.9', or take adamw")
        return torch.optim.Muon(
            [self._parameters[name] for name in names],
            lr=plan.lr, weight_decay=plan.weight_decay, adjust_lr_fn="match_rms_adamw",
        )  # fmt: skip

    def _begin(self) -> None:
        """A step that changes nothing, since torch makes moments with the first one only."""
        for tensor in self._parameters.values():
            tensor.grad = torch.zeros_like(tensor)
        self.step(0.0)
        for name, moment in self.moments().items():
            if name.endswith("/step"):
                moment.zero_()


def _turns(name: str, tensor: Tensor) -> bool:
    return tensor.ndim == 2 and TABLES.isdisjoint(name.split("."))
