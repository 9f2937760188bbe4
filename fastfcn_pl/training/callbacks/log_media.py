"""Logging of images, tables, run metadata and alerts, on rank 0 only."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import lightning as L
import numpy as np
import wandb
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger
from PIL import Image


def wandb_run(trainer: L.Trainer) -> Any:
    """Return the W&B run; None on other ranks and if W&B is off."""
    runs = (logger.experiment for logger in trainer.loggers if isinstance(logger, WandbLogger))
    return next(runs, None) if trainer.is_global_zero else None


def tensorboard_logger(trainer: L.Trainer) -> TensorBoardLogger | None:
    """Return the TensorBoard logger; None on other ranks and if TensorBoard is off."""
    loggers = (logger for logger in trainer.loggers if isinstance(logger, TensorBoardLogger))
    return next(loggers, None) if trainer.is_global_zero else None


def log_wandb(trainer: L.Trainer, values: Mapping[str, Any]) -> None:
    """Log W&B objects, such as images and tables, at the current global step."""
    if values and (run := wandb_run(trainer)) is not None:
        run.log({**values, "trainer/global_step": trainer.global_step})


def log_tensorboard_image(trainer: L.Trainer, key: str, pixels: np.ndarray) -> None:
    """Log a uint8 image `(H, W, 3)` to TensorBoard.

    TensorBoard's own `add_image` compresses harder, which takes about three times as long.
    """
    if (logger := tensorboard_logger(trainer)) is None:
        return
    from tensorboard.compat.proto.summary_pb2 import Summary  # type: ignore[import-untyped]

    file, (height, width) = io.BytesIO(), pixels.shape[:2]
    Image.fromarray(pixels).save(file, "PNG", compress_level=1)
    image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=file.getvalue())
    summary = Summary(value=[Summary.Value(tag=key, image=image)])
    step = trainer.fit_loop.epoch_loop._batches_that_stepped  # the step that Lightning logs scalars at
    logger.experiment._get_file_writer().add_summary(summary, step)


def log_metadata(trainer: L.Trainer, values: Mapping[str, Any]) -> None:
    """Log facts about the whole run: to W&B's summary, and to other loggers as the hyper-parameter `facts`."""
    for logger in trainer.loggers:
        if not isinstance(logger, WandbLogger):
            logger.log_hyperparams({"facts": dict(values)})
    update_summary(trainer, values)


def update_summary(trainer: L.Trainer, values: Mapping[str, Any]) -> None:
    """Write `values` to W&B's summary."""
    if (run := wandb_run(trainer)) is not None:
        run.summary.update(dict(values))


def alert(trainer: L.Trainer, title: str, text: str) -> None:
    """Send a W&B alert, which reaches the user by mail or chat as configured in W&B."""
    if (run := wandb_run(trainer)) is not None:
        run.alert(title, text, level=wandb.AlertLevel.ERROR)
