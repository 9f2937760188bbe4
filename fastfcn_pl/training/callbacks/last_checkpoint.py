"""Checkpoint from which a stopped run resumes."""

from __future__ import annotations

from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Checkpoint

from fastfcn_pl.training.callbacks.preemption import StopRequest, stop_run


class LastCheckpoint(Checkpoint):
    """Save the run to `path` at the end of each epoch, and every `every_n_steps` steps inside an epoch.

    A run resumed from it ends exactly as it would have without the interruption. Lightning's `ModelCheckpoint` saves
    before a step's metrics are logged and before a validation that is due, so a resumed run lacks them. This callback
    saves between two batches, after all work of the first one is done.

    A run that receives SIGTERM, Ctrl-C, SIGHUP or, under SLURM, SIGUSR1 is saved and then exits with 128 + the signal,
    such as 143. A validation in progress is finished first. A second Ctrl-C ends the run at once.
    """

    def __init__(self, *, path: str, every_n_steps: int | None) -> None:
        self.path, self.every_n_steps = path, every_n_steps
        self._saved_step = 0
        self._stop_request = StopRequest(path)

    def on_sanity_check_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._stop_request.listen(trainer)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._stop_request.listen(trainer)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._stop_request.listen(trainer)

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._stop_request.listen(trainer)

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: dict[str, Any], batch_idx: int
    ) -> None:
        # Resumed right after a validation inside an epoch, Lightning would count the step before it twice.
        validated = batch_idx and trainer.val_check_batch and batch_idx % trainer.val_check_batch == 0
        if batch_idx % trainer.accumulate_grad_batches or validated:
            return
        step, stop_signal = trainer.global_step, self._stop_request.on_any_rank(trainer)
        due = stop_signal or (self.every_n_steps and step % self.every_n_steps == 0)
        if due and batch_idx and step != self._saved_step:
            self._save(trainer)
        if stop_signal:
            stop_run(trainer, stop_signal, self.path)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._save(trainer)
        if stop_signal := self._stop_request.on_any_rank(trainer):
            stop_run(trainer, stop_signal, self.path)

    def _save(self, trainer: L.Trainer) -> None:
        self._saved_step = trainer.global_step
        for logger in trainer.loggers:
            logger.save()  # a resumed run does not log these steps again
        trainer.save_checkpoint(self.path)

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Do not count the batch that is about to start, so that a resumed run repeats it."""
        progress = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
        for counts in (progress["total"], progress["current"]):
            if counts["ready"] == counts["started"] + 1:
                counts["ready"] -= 1
