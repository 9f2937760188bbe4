"""The scores of each class in one table, and which class is taken for which."""

from __future__ import annotations

import io

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
    """Log, of each validation and of the final scoring, a table of the classes and the confusion matrix.

    Its rows are shares of the true class. TensorBoard gets it as a picture, W&B also as a chart of the cells that hold
    `least` or more, at most the 10,000 that W&B draws: of 150 classes the matrix is too large, what is confused is not.
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
            log_media.summarize(trainer, {"final/mIoU_over": f"{classes - len(absent)} of {classes} classes"})

    def _log(self, trainer: L.Trainer, pl_module: SegmentationModule, stage: str) -> None:
        if log_media.wandb_run(trainer) is None and log_media.tensorboard(trainer) is None:
            return
        spec, scores = pl_module.spec, pl_module.scores
        drawn = io.BytesIO()
        draw_confusion(scores.matrix.numpy(), spec.classes, drawn)
        pixels = np.asarray(Image.open(drawn).convert("RGB"))
        log_media.picture(trainer, f"{stage}/confusion", pixels)
        media = {
            f"{stage}/classes": class_table(scores, spec),
            f"{stage}/confusion": wandb.Image(pixels),
            f"{stage}/confusion_chart": confusion_chart(scores, spec, self.least),
        }
        log_media.media(trainer, media)


def class_table(scores: Scores, spec: DatasetSpec) -> wandb.Table:
    """Return a row of fractions for each class; None is for one without a pixel."""
    columns = {"IoU": scores.iou, "accuracy": scores.accuracy, "Dice": scores.dice, "share": scores.share}
    rows = zip(spec.classes, *(column.tolist() for column in columns.values()), strict=True)
    data = [[name, *(None if value != value else value for value in values)] for name, *values in rows]
    return wandb.Table(columns=["class", *columns], data=data)


def confusion_chart(scores: Scores, spec: DatasetSpec, least: float) -> wandb.plot.CustomChart:
    """Return W&B's chart of a confusion matrix, in percent of the true class."""
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
