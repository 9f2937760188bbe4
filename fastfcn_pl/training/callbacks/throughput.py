"""How fast training goes, and how much of the time it waits for data."""

from __future__ import annotations

import time
from typing import Any

import lightning as L


class Throughput(L.Callback):
    """Log `train/images_per_second` over all devices and `train/data_wait`, the share of time that waits for data.

    Both are of the time since the last log, epoch or validation. Lightning's `ThroughputMonitor`
    does not know the waiting, and refuses steps between logs that accumulated batches do not divide.
    """

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._batch_ended: float | None = None

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._batch_ended = None

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._batch_ended = None  # the time of a validation inside an epoch is nobody's

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: dict[str, Any], batch_idx: int
    ) -> None:
        now = time.perf_counter()
        if self._batch_ended is None:
            self._since, self._images, self._waited = now, 0, 0.0
        else:
            self._waited += now - self._batch_ended

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: dict[str, Any], batch_idx: int
    ) -> None:
        self._images += len(batch["image"]) * trainer.world_size
        every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
        logged = every and trainer.global_step % every == 0
        now = self._batch_ended = time.perf_counter()
        if logged and now > self._since:
            seconds = now - self._since
            values = {"train/images_per_second": self._images / seconds, "train/data_wait": self._waited / seconds}
            pl_module.log_dict(values, batch_size=len(batch["image"]))
            self._since, self._images, self._waited = now, 0, 0.0
