"""Hidden states from running vLLM servers: each sample is one request, and one file that a server writes for it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from spec_convert.errors import UsageError
from spec_convert.serving.capture import LAYERS, PATH, failure_of
from spec_convert.serving.captured import wait_for_states
from spec_convert.training.capture.states import Wanted
from spec_convert.training.servers.endpoints import Answer, AskAgain, Body, Endpoints

if TYPE_CHECKING:
    from torch import Tensor

    from spec_convert.training.capture.engine import Chunk

COMPLETIONS = "/v1/completions"
PARAMETERS = "kv_transfer_params"  # of an answer
GREETING = [0, 0]  # token ids that every verifier has
FILE_SECONDS = 30.0  # from the answer to its file: a server that has died in between never writes it
NOT_CAPTURING = "start it with: spec-convert serve --capture MODEL"


@dataclass(frozen=True)
class Files:
    """Of what the servers write: ``server``, a folder of theirs, is ``local`` here. Read files are removed, or kept."""

    server: Path = Path("/")
    local: Path = Path("/")
    keep: bool = False

    def here(self, path: Path) -> Path:
        """Raises UsageError for a file elsewhere than in the server's folder."""
        if not path.is_relative_to(self.server):
            raise UsageError(
                f"the server writes {path}, which is not in {self.server}",
                hint=f"say which folder of the server is which here: --storage-as {path.parent}=LOCAL_DIR",
            )
        return self.local / path.relative_to(self.server)


class ServerEngine:
    """An `Engine` that asks ``endpoints``. ``model`` is what they call the verifier."""

    name = "vllm server"

    def __init__(self, endpoints: Endpoints, model: str, files: Files, wanted: Wanted) -> None:
        self._endpoints, self._model, self._files, self._wanted = endpoints, model, files, wanted

    def capture(self, chunks: Iterable[Chunk]) -> Iterator[list[Tensor]]:
        """As `Engine` says. What a server has answered without a file is asked again."""
        sizes: deque[int] = deque()

        def bodies() -> Iterator[Body]:
            for chunk in chunks:
                sizes.append(len(chunk))
                yield from (_body(self._model, token_ids) for token_ids in chunk)

        with closing(self._endpoints.results(COMPLETIONS, bodies(), self._states)) as results:
            for first in results:
                yield [first, *islice(results, sizes.popleft() - 1)]

    def _states(self, body: Body, answer: Answer) -> Tensor:
        """[T, L, H] in the wanted dtype. Raises AskAgain, and UsageError when these are other states."""
        said = answer.get(PARAMETERS) or {}
        if PATH not in said:
            raise AskAgain(f"its answer names no file of hidden states: {NOT_CAPTURING}")
        path = self._files.here(Path(said[PATH]))
        if LAYERS in said:
            self._wanted.require_ids(said[LAYERS], where="the server")
        token_ids, states = _waited_for(path)
        if token_ids.tolist() != list(body["prompt"]):
            raise UsageError(f"{path} holds the states of another text", hint="the server mixes up its requests")
        states = self._wanted.checked(states, tokens=len(token_ids), where=path)
        if not self._files.keep:
            _remove(path)
        return states


def captured_layers(endpoints: Endpoints, model: str, files: Files) -> tuple[int, ...] | None:
    """Which layers the servers capture, asked with a text of two tokens; None when they do not say.

    Raises UsageError when they capture nothing, or when what they write cannot be seen from here.
    """

    def read(_: Body, answer: Answer) -> tuple[int, ...] | None:
        said = answer.get(PARAMETERS) or {}
        if PATH not in said:
            raise UsageError(f"the server of {model} captures no hidden states", hint=NOT_CAPTURING)
        path = files.here(Path(said[PATH]))
        _waited_for(path)
        _remove(path)
        return tuple(said[LAYERS]) if LAYERS in said else None

    (layers,) = endpoints.results(COMPLETIONS, [_body(model, GREETING)], read)
    return layers


def _body(model: str, token_ids: Sequence[int]) -> Body:
    return {"model": model, "prompt": list(token_ids), "max_tokens": 1, "temperature": 0}


def _remove(path: Path) -> None:
    path.unlink()
    path.with_name(f"{path.name}.lock").unlink(missing_ok=True)  # which vLLM's own connector leaves behind


def _waited_for(path: Path) -> tuple[Tensor, Tensor]:
    """Raises AskAgain when nothing has come, and UsageError when that will not change."""
    try:
        return wait_for_states(path, timeout=FILE_SECONDS)
    except UsageError as problem:
        if path.exists() or failure_of(path).exists():
            raise
        if not path.parent.is_dir():
            raise UsageError(
                f"the server writes to {path.parent}, and no such folder is here",
                hint=f"say where it is on this machine: --storage-as {path.parent}=LOCAL_DIR",
            ) from problem
        raise AskAgain(problem.message) from problem
