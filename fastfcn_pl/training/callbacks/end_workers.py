"""End of the data workers of a run that fails."""

from __future__ import annotations

import lightning as L

from fastfcn_pl.data.workers import kill_workers
from fastfcn_pl.training.distributed import FAILED, note


class EndWorkers(L.Callback):
    """Kill the workers of a run that an error ends: torch would wait for each of them, even for one that hangs.

    Rank 0 also tells the other ranks of its error.
    """

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        if trainer.is_global_zero:
            note(FAILED)
        kill_workers()
