"""Reading a folder of the community's `data_{i}.pt` files, ours or another's, as if it were a store."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from spec_convert.errors import UsageError
from spec_convert.training.store.community_file import PtSample, read_pt
from spec_convert.training.store.community_writing import LENGTHS
from spec_convert.training.store.data_config import PtFacts, facts_of, read_facts
from spec_convert.training.store.manifest import NAME as MANIFEST
from spec_convert.training.store.manifest import LayerFacts, TokenizerFacts, read_manifest
from spec_convert.training.store.reading import require_finished
from spec_convert.training.store.sample import Sample

if TYPE_CHECKING:
    from torch import Tensor

Last = Literal["before_norm", "after_norm"]
NUMBERED = re.compile(r"data_(0|[1-9][0-9]*)\.pt")


class PtFolder:
    """The samples in the order of their numbers; ``folder[i]`` reads one.

    ``tokenizer``: None when nobody says whose token ids these are. ``layers`` is asked for by whoever uses the states.
    """

    def __init__(
        self, folder: Path, files: Sequence[Path], tokenizer: TokenizerFacts | None, layers: LayerFacts | None
    ) -> None:
        self.folder, self.tokenizer, self._files, self._layers = folder, tokenizer, files, layers

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, place: int) -> Sample:
        import torch

        if not 0 <= place < len(self):
            raise IndexError(place)
        layers, read = self.layers, self._read(place)
        self._require_as_said(place, read, layers)
        index = place if read.index is None else read.index
        return Sample(index, read.input_ids, read.loss_mask, torch.stack(read.states, dim=1))

    def __iter__(self) -> Iterator[Sample]:
        return (self[place] for place in range(len(self)))

    @property
    def layers(self) -> LayerFacts:
        """Raises UsageError when neither the folder nor the caller says which states these are."""
        if self._layers is None:
            raise UsageError(
                f"{self.folder} does not say which layers its states are of, nor whether the last one is normed",
                hint="say it: `open_data(folder, layer_ids=(2, 16, 29, 32), last='before_norm')`, in boundary ids;"
                " generators that number what leaves a layer, as speculators' did, call boundary id 3 their 2",
            )
        return self._layers

    def tokens(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The ``input_ids`` and ``loss_mask`` of each sample, without its states."""
        for place in range(len(self)):
            read = self._read(place)
            yield read.input_ids, read.loss_mask

    @cached_property
    def lengths(self) -> Tensor:
        """[samples] int64: tokens of each."""
        import torch

        lengths = self._stated_lengths
        if lengths is None:
            lengths = [len(self._read(place).input_ids) for place in range(len(self))]
        return torch.tensor(lengths, dtype=torch.int64)

    @cached_property
    def _stated_lengths(self) -> list[int] | None:
        """As `sample_lengths.json` says; each is compared with its file when that is read."""
        path = self.folder / LENGTHS
        try:
            stated = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise _not_the_lengths(path, f"cannot be read: {error}") from error
        names = [str(place) for place in range(len(self))]
        if not isinstance(stated, dict) or stated.keys() != set(names):
            raise _not_the_lengths(path, f"does not list the samples 0 to {len(self) - 1}")
        if not all(type(length) is int for length in stated.values()):
            raise _not_the_lengths(path, "lists lengths that are no numbers")
        return [stated[name] for name in names]

    def _read(self, place: int) -> PtSample:
        read = read_pt(self._files[place])
        if place and read.version != self._version:
            raise UsageError(
                f"{self._files[place]} is of version {read.version}, and {self._files[0].name} of {self._version}",
                hint="files of two kinds of runs lie together: keep them apart",
            )
        stated = self._stated_lengths
        if stated is not None and stated[place] != len(read.input_ids):
            what = f"says {stated[place]} tokens of {self._files[place].name}, which has {len(read.input_ids)}"
            raise _not_the_lengths(self.folder / LENGTHS, what)
        return read

    @cached_property
    def _version(self) -> int:
        return read_pt(self._files[0]).version

    def _require_as_said(self, place: int, read: PtSample, layers: LayerFacts) -> None:
        first = read.states[0]
        there = (len(read.states), first.shape[1], str(first.dtype).removeprefix("torch."))
        if there != (said := (len(layers.ids), layers.hidden_size, layers.dtype)):
            raise UsageError(
                "{} holds {} layers of width {} in {}, not {} of width {} in {}".format(
                    self._files[place], *there, *said
                ),
                hint="every file must be as the first one, and as data_config.json or the caller says",
            )


def open_pt(folder: Path, *, layer_ids: Sequence[int] | None = None, last: Last | None = None) -> PtFolder:
    """The files `data_{i}.pt` of ``folder``, for which `data_config.json` says what they are when it is ours.

    For the files of others, ``layer_ids`` are the boundary ids of the states of each sample, of which the last is the
    verifier's number of layers, and ``last`` says what that state is. Without them tokens and lengths can be read,
    and states cannot. Raises UsageError.
    """
    facts = _facts(folder)
    files = _numbered(folder)
    if facts is None:
        return PtFolder(folder, files, None, _given(files[0], layer_ids, last))
    require_same_layers(folder, facts.layers, layer_ids, last)
    if len(files) != facts.samples:
        raise UsageError(f"{folder} holds {len(files)} of {facts.samples} samples", hint="copy the folder again")
    return PtFolder(folder, files, facts.tokenizer, facts.layers)


def require_same_layers(
    folder: Path, there: LayerFacts | None, layer_ids: Sequence[int] | None, last: Last | None
) -> None:
    """Raises UsageError when the caller says something else of the states than ``folder`` does."""
    if layer_ids is None and last is None:
        return
    said = None if layer_ids is None else tuple(layer_ids)
    if there is None or (said, last) != (there.ids, there.last):
        holds = f"the layers {there.ids}, the last {there.last}" if there else "no states"
        raise UsageError(
            f"{folder} holds {holds}, not the layers {said}, the last {last}",
            hint="leave `layer_ids` and `last` out: the folder says what it holds",
        )


def _facts(folder: Path) -> PtFacts | None:
    """What we wrote of them: in the manifest where it still lies beside, else in `data_config.json`."""
    if not (folder / MANIFEST).exists():
        return read_facts(folder)
    manifest = read_manifest(folder)
    if manifest.layout != "pt" or manifest.layers is None:
        raise UsageError(f"{folder} holds a store, not `data_{{i}}.pt` files", hint="open it with `open_data`")
    require_finished(folder, manifest)
    return facts_of(manifest)


def _numbered(folder: Path) -> list[Path]:
    """`data_0.pt` and all that follow."""
    if not folder.is_dir():
        raise UsageError(f"there is no folder {folder}", hint="give the folder that holds `data_0.pt`")
    names = {name for name in os.listdir(folder) if name.endswith(".pt")}
    if foreign := sorted(name for name in names if not NUMBERED.fullmatch(name)):
        raise UsageError(f"{folder / foreign[0]} is no `data_{{i}}.pt`", hint="keep other files elsewhere")
    if not names:
        raise UsageError(f"{folder} holds no `data_{{i}}.pt`", hint="give the folder that holds `data_0.pt`")
    wanted = [f"data_{place}.pt" for place in range(len(names))]
    if missing := next((name for name in wanted if name not in names), None):
        raise UsageError(
            f"{folder} lacks {missing}, and holds later ones", hint="copy the folder again, or write it anew"
        )
    return [folder / name for name in wanted]


def _given(first: Path, layer_ids: Sequence[int] | None, last: Last | None) -> LayerFacts | None:
    if layer_ids is None and last is None:
        return None
    if layer_ids is None or last is None:
        raise UsageError("of `layer_ids` and `last` only one is given", hint="give both, or neither")
    ids, states = tuple(layer_ids), read_pt(first).states
    if list(ids) != sorted(set(ids)) or len(ids) != len(states) or ids[0] < 0:
        raise UsageError(
            f"{first} holds the states of {len(states)} layers, and `layer_ids` are {ids}",
            hint="give one boundary id for each, in ascending order; the last is the verifier's number of layers",
        )
    return LayerFacts.model_validate(
        {
            "ids": ids,
            "num_hidden_layers": ids[-1],
            "hidden_size": states[0].shape[1],
            "dtype": str(states[0].dtype).removeprefix("torch."),
            "last": last,
        }
    )


def _not_the_lengths(path: Path, what: str) -> UsageError:
    return UsageError(f"{path} {what}", hint="remove it: the lengths are then read from the files")
