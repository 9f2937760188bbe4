"""How samples are brought to the device."""

from __future__ import annotations

from dataclasses import dataclass

from fastfcn_pl.core.types import UserError


@dataclass(frozen=True, kw_only=True)
class Loading:
    """How workers run, and what is kept of what they read; null is automatic.

    With `persistent_workers` (null: yes) they live on between epochs. `pin_memory` (null: where the device is a GPU)
    lets a batch travel while another is computed. `prefetch` is how many batches each worker keeps ready (null: 2).
    `cache` is a folder for decoded images (null: none).
    """

    persistent_workers: bool | None
    pin_memory: bool | None
    prefetch: int | None
    cache: str | None

    def __post_init__(self) -> None:
        if self.prefetch is not None and self.prefetch < 1:
            raise UserError(f"data.loader.prefetch={self.prefetch}: a worker prepares one batch at least")


AUTOMATIC = Loading(persistent_workers=None, pin_memory=None, prefetch=None, cache=None)
