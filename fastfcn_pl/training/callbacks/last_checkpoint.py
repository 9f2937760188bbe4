"""The checkpoint that a run which was stopped goes on from."""

from __future__ import annotations

from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Checkpoint

from fastfcn_pl.training.callbacks.preemption import Notice, end


class LastCheckpoint(Checkpoint):
    """Write the state of the run to `path` at the end of each epoch, and after every `every_n_steps` steps inside one.

    A run that goes on from it ends as it would have ended. Lightning's `ModelCheckpoint` saves before a step's metrics
    are logged and before a validation that is due, and so loses them when the run goes on; this one saves between two
    batches, when all that belongs to the first is done.

    A run that is told to end (SIGTERM, Ctrl-C, a closed terminal; SIGUSR1 under SLURM) does so when it is saved, after
    a validation that it is in: with exit code 128 + the signal, such as 143. A second Ctrl-C ends it at once.
    """

    def __init__(self, *, path: str, every_n_steps: int | None) -> None:
        self.path, self.every_n_steps = path, every_n_steps
        self._saved_step = 0
        self._notice = Notice(path)

    def on_sanity_check_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._notice.listen(trainer)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._notice.listen(trainer)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._notice.listen(trainer)

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._notice.listen(trainer)

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: dict[str, Any], batch_idx: int
    ) -> None:
        # Lightning, going on from behind a validation inside of an epoch, would count the step before it twice.
        validated = batch_idx and trainer.val_check_batch and batch_idx % trainer.val_check_batch == 0
        if batch_idx % trainer.accumulate_grad_batches or validated:
            return
        step, told = trainer.global_step, self._notice.of_any_rank(trainer)
        due = told or (self.every_n_steps and step % self.every_n_steps == 0)
        if due and batch_idx and step != self._saved_step:
            self._save(trainer)
        if told:
            end(trainer, told, self.path)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._save(trainer)
        if told := self._notice.of_any_rank(trainer):
            end(trainer, told, self.path)

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
