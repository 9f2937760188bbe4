"""The checkpoint that a run which was stopped goes on from."""

from __future__ import annotations

from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Checkpoint


class LastCheckpoint(Checkpoint):
    """Write the state of the run to `path` at the end of each epoch, and after every `every_n_steps` steps inside one.

    A run that goes on from it ends as it would have ended. Lightning's `ModelCheckpoint` saves before a step's metrics
    are logged and before a validation that is due, and so loses them when the run goes on; this one saves between two
    batches, when all that belongs to the first is done.
    """

    def __init__(self, *, path: str, every_n_steps: int | None) -> None:
        self.path, self.every_n_steps = path, every_n_steps
        self._saved_step = 0

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: dict[str, Any], batch_idx: int
    ) -> None:
        step = trainer.global_step
        if not self.every_n_steps or step % self.every_n_steps or step == self._saved_step:
            return
        validated = trainer.val_check_batch and batch_idx % trainer.val_check_batch == 0
        # Lightning, going on from behind a validation inside of an epoch, would count the step before it twice.
        if batch_idx and batch_idx % trainer.accumulate_grad_batches == 0 and not validated:
            self._save(trainer)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._save(trainer)

    def _save(self, trainer: L.Trainer) -> None:
        self._saved_step = trainer.global_step
        for logger in trainer.loggers:
            logger.save()  # what is logged up to here has to be there when the run goes on
        trainer.save_checkpoint(self.path)

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Take back that the batch is ready which starts when a checkpoint is written between two batches."""
        progress = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
        for counts in (progress["total"], progress["current"]):
            if counts["ready"] == counts["started"] + 1:
                counts["ready"] -= 1
