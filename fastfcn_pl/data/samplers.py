"""Which samples a rank draws, in which order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import Sampler

BLANK = -1
"""The index of a sample that is no image of the data set, and is not scored."""


class TrainSampler(Sampler[tuple[int, int]]):
    """Shuffled `(epoch, index)` keys of one rank: a permutation that `(seed, epoch)` decides, dealt out to the ranks.

    Every rank gets the same number of samples; the remainder of fewer than `world_size` samples is left out of the
    epoch, and is another one in the next. A run that goes on inside of epoch `epoch` leaves out the first `done`
    samples of it.
    """

    def __init__(self, count: int, seed: int, rank: int, world_size: int, epoch: int = 0, done: int = 0) -> None:
        self.count, self.seed, self.rank, self.world_size = count, seed, rank, world_size
        self.epoch, self._done = epoch, {epoch: done}

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch comes next; Lightning calls it."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.count // self.world_size

    def __iter__(self) -> Iterator[tuple[int, int]]:
        rng = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        order = torch.randperm(self.count, generator=rng)[: len(self) * self.world_size]
        mine = order[self.rank :: self.world_size].tolist()
        for index in mine[self._done.get(self.epoch, 0) :]:
            yield self.epoch, index


class EvalSampler(Sampler[tuple[int, int]]):
    """The `(0, index)` keys of one rank: over all ranks every sample exactly once, none repeated to even them out.

    A rank for which none is left draws `BLANK`, since Lightning leaves out the whole loop on a rank without a batch,
    and with it what the other ranks wait for.
    """

    def __init__(self, count: int, rank: int, world_size: int) -> None:
        self.indices: Sequence[int] = range(rank, count, world_size) or [BLANK]

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return ((0, index) for index in self.indices)
