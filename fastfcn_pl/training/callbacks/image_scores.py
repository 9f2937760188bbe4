"""Score of each image, and overlays of the worst ones."""

from __future__ import annotations

import heapq
import math
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import lightning as L
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fastfcn_pl.core.atomic_io import atomic_write
from fastfcn_pl.core.redaction import hide
from fastfcn_pl.core.tables import write_csv
from fastfcn_pl.data.samplers import BLANK
from fastfcn_pl.evaluation.metrics import Scores, confusion
from fastfcn_pl.evaluation.visualize import add_title, stack
from fastfcn_pl.training.callbacks import log_media
from fastfcn_pl.training.callbacks.sample_images import Sample
from fastfcn_pl.training.module import SegmentationModule

_T = TypeVar("_T")
_MAX_SIDE = 400
"""Longer side of an image on the sheet, in pixels."""


class _ImageScore(NamedTuple):
    mean_iou: float
    pixel_accuracy: float
    position: int
    counts: np.ndarray
    """`(3, num_classes)` int64: correct, labelled and predicted pixels of each class."""
    sample: Sample | None


class ImageScores(L.Callback):
    """Write the final score of each image, worst first, to `folder/images.csv`, and its pixel counts to `images.npz`.

    `counts` in `images.npz` is `(images, 3, num_classes)`: correct, labelled and predicted pixels of each class, in the
    order of the split; `position` is the place of each image in it. Reports compare runs by these counts.

    Overlays of the `worst` images go to `folder/worst.png` and to the loggers; in W&B they have masks, as in `Samples`.

    An image's mIoU is the mean over the classes in its labels or its prediction. The mean of these scores is therefore
    not the split's mIoU. An image without a labelled pixel has no score.
    """

    def __init__(self, *, folder: str, worst: int) -> None:
        self.folder, self.worst = Path(folder), worst

    def on_test_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._scores: list[_ImageScore] = []
        # A heap of (-mIoU, index in `_scores`): its first entry is the best of this rank's worst images.
        self._worst: list[tuple[float, int]] = []

    def on_test_batch_end(  # type: ignore[override]
        self,
        trainer: L.Trainer,
        pl_module: SegmentationModule,
        outputs: dict[str, Tensor],
        batch: dict[str, Tensor],
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if int(batch["index"][0]) == BLANK:
            return
        matrix = confusion(outputs["prediction"], batch["target"], pl_module.spec.num_classes)
        scores = Scores.of(matrix)
        counts = torch.stack([matrix.diagonal(), matrix.sum(1), matrix.sum(0)]).cpu().numpy()
        self._scores.append(_ImageScore(scores.mean_iou, scores.pixel_accuracy, int(batch["index"][0]), counts, None))
        if self.worst == 0 or math.isnan(scores.mean_iou):
            return
        entry = -scores.mean_iou, len(self._scores) - 1
        if len(self._worst) < self.worst:
            heapq.heappush(self._worst, entry)
        elif entry < self._worst[0]:
            return
        else:
            _, dropped = heapq.heapreplace(self._worst, entry)
            self._scores[dropped] = self._scores[dropped]._replace(sample=None)
        self._scores[-1] = self._scores[-1]._replace(sample=Sample(outputs, batch, pl_module.spec, _MAX_SIDE))

    def on_test_epoch_end(self, trainer: L.Trainer, pl_module: SegmentationModule) -> None:  # type: ignore[override]
        scores = sorted(gather(trainer, self._scores), key=lambda s: (math.isnan(s.mean_iou), s.mean_iou, s.position))
        if not trainer.is_global_zero or not scores:
            return
        source = trainer.test_dataloaders.dataset.source  # type: ignore[union-attr]
        names = {s.position: hide(str((source.files(s.position) or (source.name(s.position),))[0])) for s in scores}
        rows = ([names[s.position], _format(s.mean_iou), _format(s.pixel_accuracy)] for s in scores)
        write_csv(self.folder / "images.csv", ["image", "mIoU", "pixel_accuracy"], rows)
        in_order = sorted(scores, key=lambda s: s.position)
        with atomic_write(self.folder / "images.npz") as hidden, hidden.open("wb") as file:
            positions = np.array([s.position for s in in_order])
            np.savez_compressed(file, counts=np.stack([s.counts for s in in_order]), position=positions)
        worst = [
            (s.sample, f"{names[s.position]}   mIoU {100 * s.mean_iou:.2f}")
            for s in scores[: self.worst]
            if s.sample is not None
        ]
        if worst:
            sheet = stack([add_title(sample.comparison(), title) for sample, title in worst])
            with atomic_write(self.folder / "worst.png") as hidden:
                Image.fromarray(sheet).save(hidden, format="PNG")
            log_media.log_picture(trainer, "final/worst", sheet)
        if worst and log_media.wandb_run(trainer) is not None:
            images = [sample.wandb_image(Path(title).name) for sample, title in worst]
            log_media.log_wandb(trainer, {"final/worst": images})


def gather(trainer: L.Trainer, items: list[_T]) -> list[_T]:
    """Return the items of all ranks."""
    if trainer.world_size == 1:
        return items
    gathered: list[Any] = [None] * trainer.world_size
    torch.distributed.all_gather_object(gathered, items)
    return [item for rank in gathered for item in rank]


def _format(x: float) -> str:
    return "" if math.isnan(x) else f"{x:.6f}"
