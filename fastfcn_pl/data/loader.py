"""Data loader whose workers may be killed."""

from __future__ import annotations

from typing import Any, TypeVar

from torch.utils.data import DataLoader
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from fastfcn_pl.data.workers import loader_iterators

T_co = TypeVar("T_co", covariant=True)


class Loader(DataLoader[T_co]):
    """torch's loader, which does not wait for workers that `kill_workers` has killed."""

    def _get_iterator(self) -> Any:
        iterator = super()._get_iterator()
        if isinstance(iterator, _MultiProcessingDataLoaderIter):
            loader_iterators.add(iterator)
        return iterator
