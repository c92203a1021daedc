"""Which chains P-EAGLE is trained on at each depth (arXiv 2602.01469): fewer the deeper, each from its first token on.

Of a document's chains all are taken at depth 0. At depth d it is a share of those whose whole window is an answer's,
r^d but no less than a least share, drawn from the chains that were taken at depth d - 1. For eight chains of one answer
and r = 0.7, with the row that each starts at:

    depth 0: 8       2 3 4 5 6 7 8 9
    depth 1: 4 of 7  2 . 4 . . 7 8 .      int(7 * 0.7)
    depth 2: 2 of 6  . . 4 . . 7 . .      int(6 * 0.49)
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from zlib import crc32

import torch
from torch import Tensor

from spec_convert.training.batches.batch import Batch
from spec_convert.training.unrolling.windows import whole_windows


def shares(depths: int, *, ratio: float, least: float) -> list[float]:
    """[D] the share of the chains that is taken at each depth.

    >>> shares(4, ratio=0.5, least=0.2)
    [1.0, 0.5, 0.25, 0.2]
    """
    return [max(ratio**depth, least) for depth in range(depths)]


def planned_counts(batch: Batch, shares: Sequence[float]) -> Tensor:
    """[D] int64: how many chains are to be drawn at each depth, of all documents."""
    windows = whole_windows(batch, len(shares)).cpu()
    counts = [_wanted(windows[:, start:end], shares) for start, end in pairwise(batch.bounds)]
    return torch.tensor(counts).sum(dim=0)


def drawn_chains(batch: Batch, shares: Sequence[float], seed: int) -> Tensor:
    """[D, S] bool: the rows whose chains are taken at each depth; whoever is taken was so at the depth before.

    As many as planned, or all that can go on where those are fewer. What is drawn of a document depends on ``seed`` and
    its tokens, and not on its neighbours in the row.
    """
    windows = whole_windows(batch, len(shares)).cpu()
    taken = windows.clone()
    tokens = batch.input_ids.cpu()
    for start, end in pairwise(batch.bounds):
        random = torch.Generator().manual_seed(crc32(tokens[start:end].numpy().tobytes(), seed % 2**32))
        for depth, wanted in enumerate(_wanted(windows[:, start:end], shares)[1:], 1):
            pool = (taken[depth - 1] & windows[depth])[start:end].nonzero()[:, 0]
            some = pool[torch.randperm(len(pool), generator=random)[:wanted]]
            taken[depth, start:end] = False
            taken[depth, start + some] = True
    return taken.to(batch.input_ids.device)


def _wanted(windows: Tensor, shares: Sequence[float]) -> list[int]:
    """[D] of one document. The little more is for shares such as 0.7 squared, which is not quite 0.49."""
    return [int(chains * share + 1e-9) for chains, share in zip(windows.sum(dim=1).tolist(), shares, strict=True)]
