"""A run that ends before its time takes its workers with it."""

from __future__ import annotations

import lightning as L

from fastfcn_pl.data.workers import kill_workers
from fastfcn_pl.training.distributed import FAILED, note


class EndWorkers(L.Callback):
    """End the workers of a run that an error ends: torch would wait for each of them, and one that is stuck stays.

    Other ranks are told of rank 0's error.
    """

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        if trainer.is_global_zero:
            note(FAILED)
        kill_workers()
