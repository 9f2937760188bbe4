"""Options of the data loader."""

from __future__ import annotations

from dataclasses import dataclass

from fastfcn_pl.core.types import UserError


@dataclass(frozen=True, kw_only=True)
class Loading:
    """Options of workers and cache; null chooses automatically.

    `persistent_workers` keeps workers alive between epochs (null: yes, in a run). `pin_memory` lets batches be copied
    to a GPU during computation (null: if the device is a GPU). `prefetch` is the number of batches that each worker
    prepares ahead (null: 2). `cache` is a folder for decoded images (null: no cache).
    """

    persistent_workers: bool | None
    pin_memory: bool | None
    prefetch: int | None
    cache: str | None

    def __post_init__(self) -> None:
        if self.prefetch is not None and self.prefetch < 1:
            raise UserError(f"data.loader.prefetch={self.prefetch}: give 1 or more batches, or null")


AUTOMATIC = Loading(persistent_workers=None, pin_memory=None, prefetch=None, cache=None)
