"""Samplers that distribute a data set over ranks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor
from torch.utils.data import Sampler

BLANK = -1
"""Index of a blank sample, which is not in the data set and not scored."""


_REPEAT = 1_000_003
"""Distance between the epochs of an image's repetitions in one epoch, so that each of them is augmented anew."""
Order = Callable[[int, torch.Generator], Tensor]
"""Draws the indices of an epoch from the number of images."""


class Sampling(Protocol):
    """The choice of an epoch's images, `data/sampler`."""

    def prepare(self, dataset: object, rank: int, world_size: int) -> None:
        """Read what is needed of the data set, once before training."""

    def order(self, count: int, rng: torch.Generator) -> Tensor:
        """Return the indices `(count,)` of the next epoch's images."""


class Uniform:
    """Every image once in an epoch."""

    def prepare(self, dataset: object, rank: int, world_size: int) -> None:
        pass

    def order(self, count: int, rng: torch.Generator) -> Tensor:
        return torch.randperm(count, generator=rng)


UNIFORM = Uniform()


class TrainSampler(Sampler[tuple[int, int]]):
    """Shuffled `(epoch, index)` keys of one rank, from an `order` that depends on `(seed, epoch)` alone.

    Every rank gets the same number of samples. The remainder, fewer than `world_size` samples, is dropped and differs
    between epochs. A run that resumes inside `epoch` skips the first `done` samples of it.
    """

    def __init__(
        self,
        count: int,
        seed: int,
        rank: int,
        world_size: int,
        epoch: int = 0,
        done: int = 0,
        order: Order = UNIFORM.order,
    ) -> None:
        self.order = order
        self.count, self.seed, self.rank, self.world_size = count, seed, rank, world_size
        self.epoch, self._skipped = epoch, {epoch: done}

    def set_epoch(self, epoch: int) -> None:
        """Set the next epoch; called by Lightning."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.count // self.world_size

    def __iter__(self) -> Iterator[tuple[int, int]]:
        rng = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        order = self.order(self.count, rng)[: len(self) * self.world_size].tolist()
        earlier, keys = Counter[int](), []
        for index in order:
            keys.append((self.epoch + _REPEAT * earlier[index], index))
            earlier[index] += 1
        yield from keys[self.rank :: self.world_size][self._skipped.get(self.epoch, 0) :]


class EvalSampler(Sampler[tuple[int, int]]):
    """`(0, index)` keys of one rank; all ranks together draw every sample exactly once, without padding.

    A rank without samples draws `BLANK`: Lightning would skip the loop there, and the other ranks would wait for it.
    """

    def __init__(self, count: int, rank: int, world_size: int) -> None:
        self.indices: Sequence[int] = range(rank, count, world_size) or [BLANK]

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return ((0, index) for index in self.indices)
