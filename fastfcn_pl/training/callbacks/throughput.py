"""Training speed, and the share of time spent waiting for data."""

from __future__ import annotations

import time
from typing import Any

import lightning as L


class Throughput(L.Callback):
    """Log `train/images_per_second` over all devices and `train/data_wait`, the share of time spent waiting for data.

    Both cover the time since the last log, epoch start or validation. Lightning's `ThroughputMonitor` does not measure
    the waiting, and requires a log interval that is a multiple of the accumulated batches.
    """

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._batch_ended: float | None = None

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._batch_ended = None

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._batch_ended = None  # a validation inside an epoch is neither training nor waiting

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: dict[str, Any], batch_idx: int
    ) -> None:
        now = time.perf_counter()
        if self._batch_ended is None:
            self._interval_start, self._images, self._waited = now, 0, 0.0
        else:
            self._waited += now - self._batch_ended

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: dict[str, Any], batch_idx: int
    ) -> None:
        self._images += len(batch["image"]) * trainer.world_size
        every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
        due = every and trainer.global_step % every == 0
        now = self._batch_ended = time.perf_counter()
        if due and now > self._interval_start:
            seconds = now - self._interval_start
            values = {"train/images_per_second": self._images / seconds, "train/data_wait": self._waited / seconds}
            pl_module.log_dict(values, batch_size=len(batch["image"]))
            self._interval_start, self._images, self._waited = now, 0, 0.0
