"""Logging of images, tables, run metadata and alerts, on rank 0 only."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import wandb
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger
from PIL import Image

from fastfcn_pl.training.media_logger import MediaLogger


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


def media_loggers(trainer: L.Trainer) -> list[MediaLogger]:
    """Return the loggers besides W&B and TensorBoard that keep pictures and tables; none on other ranks."""
    return [logger for logger in trainer.loggers if isinstance(logger, MediaLogger) and trainer.is_global_zero]


def takes_pictures(trainer: L.Trainer) -> bool:
    """Tell whether a logger besides W&B keeps pictures."""
    return tensorboard_logger(trainer) is not None or bool(media_loggers(trainer))


def log_picture(trainer: L.Trainer, key: str, pixels: np.ndarray) -> None:
    """Log a uint8 image `(H, W, 3)` to all loggers but W&B, which has a richer form."""
    if (logger := tensorboard_logger(trainer)) is not None:
        _log_to_tensorboard(logger, key, pixels, _step(trainer))
    for media_logger in media_loggers(trainer):
        media_logger.log_picture(key, pixels, _step(trainer))


def log_rows(trainer: L.Trainer, key: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Log a table to the loggers besides W&B that keep one."""
    for logger in media_loggers(trainer):
        logger.log_rows(key, columns, rows, _step(trainer))


def log_file(trainer: L.Trainer, path: Path, name: str) -> None:
    """Give a copy of a file to the loggers besides W&B that keep one."""
    for logger in media_loggers(trainer):
        logger.log_file(path, name)


def _step(trainer: L.Trainer) -> int:
    """Return the step that Lightning logs scalars at."""
    return trainer.fit_loop.epoch_loop._batches_that_stepped


def _log_to_tensorboard(logger: TensorBoardLogger, key: str, pixels: np.ndarray, step: int) -> None:
    """Log an image as a fast PNG: TensorBoard's own `add_image` takes about three times as long."""
    from tensorboard.compat.proto.summary_pb2 import Summary  # type: ignore[import-untyped]

    file, (height, width) = io.BytesIO(), pixels.shape[:2]
    Image.fromarray(pixels).save(file, "PNG", compress_level=1)
    image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=file.getvalue())
    summary = Summary(value=[Summary.Value(tag=key, image=image)])
    logger.experiment._get_file_writer().add_summary(summary, step)


def log_metadata(trainer: L.Trainer, values: Mapping[str, Any]) -> None:
    """Log facts about the whole run: to the summary, and to loggers without one as the hyper-parameter `facts`."""
    for logger in trainer.loggers:
        if not isinstance(logger, (WandbLogger, MediaLogger)):
            logger.log_hyperparams({"facts": dict(values)})
    update_summary(trainer, values)


def update_summary(trainer: L.Trainer, values: Mapping[str, Any]) -> None:
    """Write `values` to the summary of the run in W&B, MLflow and Trackio."""
    if (run := wandb_run(trainer)) is not None:
        run.summary.update(dict(values))
    for logger in media_loggers(trainer):
        logger.log_facts(values, _step(trainer))


def alert(trainer: L.Trainer, title: str, text: str) -> None:
    """Send a W&B alert, which reaches the user by mail or chat as configured in W&B."""
    if (run := wandb_run(trainer)) is not None:
        run.alert(title, text, level=wandb.AlertLevel.ERROR)
