"""A draft of a few hundred numbers and its data, and runs of its training in processes of their own."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spec_convert.models.contract import Draft, DraftStates
from spec_convert.training.batches.batch import Batch
from spec_convert.training.objectives.objective import Objective, Outcome
from spec_convert.training.objectives.sums import Sums
from spec_convert.training.trainer.plan import Plan
from spec_convert.training.trainer.processes import joined
from spec_convert.training.trainer.training import train

VOCABULARY, WIDTH, STEPS = 11, 6, 2


class ToyDraft(Draft):
    def __init__(self) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(VOCABULARY, WIDTH)
        self.fc = nn.Linear(2 * WIDTH, WIDTH)
        self.layers = nn.ModuleList([nn.Linear(WIDTH, WIDTH, bias=False)])
        self.norm = nn.RMSNorm(WIDTH)
        self.lm_head = nn.Linear(WIDTH, VOCABULARY, bias=False)
        self.register_buffer("d2t", torch.arange(3))

    def states(self, input_ids: Tensor, hidden_states: Tensor, *_: object, **__: object) -> DraftStates:
        state = self.layers[0](self.fc(torch.cat((self.embed_tokens(input_ids), hidden_states), -1)).tanh())
        return DraftStates(self.norm(state), state)


class ToyObjective(Objective):
    """Two steps; what is random is drawn from the seed (noise) and from torch's own generator (dropout)."""

    def __init__(self, *, noise: float = 0.1) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(5)
            self.draft = ToyDraft()
            self.register_buffer("head", torch.randn(VOCABULARY, WIDTH), persistent=False)
        self.decay = torch.tensor([1.0, 0.5], dtype=torch.float64)
        self.noise = noise

    def weights(self, batch: Batch) -> Tensor:
        return torch.stack([self._weight(batch, step).sum() for step in range(STEPS)]).double()

    def _weight(self, batch: Batch, step: int) -> Tensor:
        """[S - 2]: the rows that have a token to guess at both steps."""
        return (batch.loss_mask[1:-1] & batch.loss_mask[2:]).float() / (1 + step)

    def forward(self, batch: Batch, share: Tensor, *, measure: bool, seed: int) -> Outcome:
        random = torch.Generator().manual_seed(seed)
        fed = batch.states + self.noise * torch.randn(batch.states.shape, generator=random)
        fed = F.dropout(fed, self.noise, training=self.training)
        targets = (batch.final @ self.head.T).argmax(-1)
        losses, weights, right = [], [], []
        for step in range(STEPS):
            states = self.draft.states(batch.input_ids, fed)
            logits, fed = F.linear(states.for_head, self.draft.head)[:-2], states.hidden_states
            weight = self._weight(batch, step)
            losses.append((F.cross_entropy(logits.float(), targets[1:-1], reduction="none") * weight).sum())
            weights.append(weight.sum())
            right.append((logits.argmax(-1) == targets[1:-1]) & weight.bool())
        loss = torch.stack(losses)
        rows = torch.stack([hit.new_tensor(len(hit)) for hit in map(Tensor.float, right)]).double() * measure
        hits = torch.stack([hit.sum() for hit in right]).double() * measure
        joint = torch.stack([right[0].sum(), (right[0] & right[1]).sum()]).double() * measure
        sums = Sums(loss.detach().double(), torch.stack(weights).double(), rows, hits, rows, joint, joint / 2)
        return Outcome((loss * share).sum(), sums)


class ToyRows:
    """Rows of 5 to 9 tokens. ``poison``: rows (of any epoch) whose states are not numbers."""

    def __init__(self, *rows: int, poison: tuple[int, ...] = ()) -> None:
        self._rows, self._poison = rows, poison
        self.read: list[tuple[int, int]] = []

    def rows(self, epoch: int) -> int:
        return self._rows[min(epoch, len(self._rows) - 1)]

    def load(self, epoch: int, row: int) -> Batch:
        assert row < self.rows(epoch)
        self.read.append((epoch, row))
        random = torch.Generator().manual_seed(1000 * epoch + row)
        length = int(torch.randint(5, 10, (), generator=random))
        states = torch.randn(length, WIDTH, generator=random)
        return Batch(
            input_ids=torch.randint(VOCABULARY, (length,), generator=random),
            loss_mask=torch.arange(length) >= 2,
            states=states * float("nan") if row in self._poison else states,
            final=torch.randn(length, WIDTH, generator=random),
            bounds=(0, length),
        )


def save_draft(folder: Path, tensors: dict[str, Tensor], *, step: int, epoch: int) -> None:
    folder.mkdir(exist_ok=True)
    torch.save({"step": step, "epoch": epoch, "tensors": tensors}, folder / "draft.pt")


def tensors_of(state: Path) -> dict[str, Tensor]:
    """All weights and moments of a state, whole."""
    from torch.distributed.checkpoint import FileSystemReader
    from torch.distributed.checkpoint.default_planner import _EmptyStateDictLoadPlanner
    from torch.distributed.checkpoint.state_dict_loader import _load_state_dict

    tensors: dict[str, Tensor] = {}
    reader, planner = FileSystemReader(state), _EmptyStateDictLoadPlanner()
    _load_state_dict(tensors, storage_reader=reader, planner=planner, no_dist=True)
    return {f"{kind}/{name}": each for kind, name, each in _leaves(tensors)}


def _leaves(tensors: dict[str, Any]) -> list[tuple[str, str, Tensor]]:
    return [(*name.split("/", 1), tensor) for name, tensor in tensors.items()]  # type: ignore[misc]


def identical(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def toy_run(
    folder: str, plan: dict[str, Any], rows: tuple[int, ...], *,
    held_out: int = 0, resume: bool = True, kill_at: int | None = None, slow: float = 0.0, dtype: str = "float32",
) -> int:  # fmt: skip
    """A training; returns its exit code. ``kill_at``: at which touch of its folder the process is killed.

    ``slow``: seconds that each row takes to read.
    """
    touches = 0

    def touch(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal touches
        if event in TOUCHING and arguments and str(arguments[0]).startswith(folder):
            touches += 1
            if touches == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(touch)
    batches = ToyRows(*rows)
    if slow:
        batches.load = _slowly(batches.load, slow)  # type: ignore[method-assign]
    with joined(Plan(**plan)) as processes:
        trained = train(
            ToyObjective(), batches, Plan(**plan), Path(folder), processes=processes, save=save_draft, request={},
            held_out=ToyRows(held_out) if held_out else None, resume=resume,
        )  # fmt: skip
    if processes.first:
        (Path(folder) / "touches").write_text(str(touches))
    return trained.exit_code


TOUCHING = frozenset({"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.symlink", "shutil.rmtree"})


def _slowly(load: Callable[[int, int], Batch], seconds: float) -> Callable[[int, int], Batch]:
    import time

    def slow(epoch: int, row: int) -> Batch:
        time.sleep(seconds)
        return load(epoch, row)

    return slow


def serve() -> None:
    """Runs for each line of stdin, in forks of this process, which has done the slow imports: says ids, then codes."""
    import_module("torch._dynamo")  # by every optimiser
    for line in sys.stdin:
        request = json.loads(line)
        children = []
        for env in request["env"]:
            if not (child := os.fork()):
                os.environ.update(env)
                code = 99
                try:
                    code = toy_run(**request["run"])
                except BaseException as failure:
                    print(repr(failure), file=sys.stderr)
                os._exit(code)
            children.append(child)
        print(json.dumps(children), flush=True)
        print(json.dumps([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]), flush=True)


if __name__ == "__main__":
    if sys.argv[1:]:
        sys.exit(toy_run(**json.loads(sys.argv[1])))
    serve()
