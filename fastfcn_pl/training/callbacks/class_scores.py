"""Table of class scores and confusion matrix for the loggers that keep them."""

from __future__ import annotations

import io
from typing import Any

import lightning as L
import numpy as np
import wandb
from PIL import Image

from fastfcn_pl.core.types import DatasetSpec
from fastfcn_pl.evaluation.confusion_plot import draw_confusion
from fastfcn_pl.evaluation.metrics import Scores
from fastfcn_pl.training.callbacks import log_media
from fastfcn_pl.training.module import SegmentationModule


class ClassScores(L.Callback):
    """Log a table of the classes and the confusion matrix after each validation and after the final scoring.

    Rows of the matrix are shares of the true class. Loggers get it as an image. W&B also gets an interactive
    chart of the cells with a share of at least `least`. W&B draws at most 10,000 cells, which is fewer than the matrix
    of 150 classes has.
    """

    def __init__(self, *, least: float) -> None:
        self.least = least

    def on_validation_end(self, trainer: L.Trainer, pl_module: SegmentationModule) -> None:  # type: ignore[override]
        if not trainer.sanity_checking:
            self._log(trainer, pl_module, "val")

    def on_test_end(self, trainer: L.Trainer, pl_module: SegmentationModule) -> None:  # type: ignore[override]
        self._log(trainer, pl_module, "final")
        if absent := pl_module.scores.absent:
            classes = pl_module.spec.num_classes
            log_media.update_summary(trainer, {"final/mIoU_over": f"{classes - len(absent)} of {classes} classes"})

    def _log(self, trainer: L.Trainer, pl_module: SegmentationModule, stage: str) -> None:
        if log_media.wandb_run(trainer) is None and not log_media.takes_pictures(trainer):
            return
        spec, scores = pl_module.spec, pl_module.scores
        png = io.BytesIO()
        draw_confusion(scores.matrix.numpy(), spec.classes, png)
        pixels = np.asarray(Image.open(png).convert("RGB"))
        log_media.log_picture(trainer, f"{stage}/confusion", pixels)
        columns, rows = class_rows(scores, spec)
        log_media.log_rows(trainer, f"{stage}/classes", columns, rows)
        media = {
            f"{stage}/classes": wandb.Table(columns=columns, data=rows),
            f"{stage}/confusion": wandb.Image(pixels),
            f"{stage}/confusion_chart": confusion_chart(scores, spec, self.least),
        }
        log_media.log_wandb(trainer, media)


def class_rows(scores: Scores, spec: DatasetSpec) -> tuple[list[str], list[list[Any]]]:
    """Return the header of a table and a row of fractions per class; scores of a class without pixels are None."""
    columns = {"IoU": scores.iou, "accuracy": scores.accuracy, "Dice": scores.dice, "share": scores.share}
    rows = zip(spec.classes, *(column.tolist() for column in columns.values()), strict=True)
    return ["class", *columns], [[name, *(None if v != v else v for v in values)] for name, *values in rows]


def confusion_chart(scores: Scores, spec: DatasetSpec, least: float) -> wandb.plot.CustomChart:
    """Return W&B's confusion matrix chart, in percent of the true class, without cells below the share `least`."""
    counts = scores.matrix.numpy()
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    largest = np.argsort(-shares, axis=None, kind="stable")[: wandb.Table.MAX_ROWS]
    kept = np.sort(largest[shares.flat[largest] >= least])
    cells = zip(*np.unravel_index(kept, shares.shape), strict=True)
    data = [[spec.classes[i], spec.classes[j], round(100 * float(shares[i, j]), 2)] for i, j in cells]
    columns = ["Actual", "Predicted", "nPredictions"]
    return wandb.plot_table(
        vega_spec_name="wandb/confusion_matrix/v1",
        data_table=wandb.Table(columns=columns, data=data),
        fields=dict(zip(columns, columns, strict=True)),
        string_fields={"title": "percent of the true class"},
        split_table=True,
    )
