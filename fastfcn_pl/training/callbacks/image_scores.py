"""Which images of a split went wrong: a score for each, and a picture of the worst."""

from __future__ import annotations

import csv
import heapq
import math
from pathlib import Path
from typing import Any, NamedTuple

import lightning as L
import torch
from PIL import Image
from torch import Tensor

from fastfcn_pl.core.atomic_io import atomic_write
from fastfcn_pl.core.redaction import hide
from fastfcn_pl.data.samplers import BLANK
from fastfcn_pl.evaluation.metrics import Scores, confusion
from fastfcn_pl.evaluation.visualize import add_title, stack
from fastfcn_pl.training.callbacks import log_media
from fastfcn_pl.training.callbacks.sample_images import Sample
from fastfcn_pl.training.module import SegmentationModule

_LONGEST = 400  # side of an image on the sheet, in pixels


class _Scored(NamedTuple):
    mean_iou: float
    pixel_accuracy: float
    position: int
    sample: Sample | None


class ImageScores(L.Callback):
    """Write the final score of each image, worst first, to `folder/images.csv`, and the `worst` ones to `worst.png`.

    The `worst` go to the loggers, too: W&B's with masks to switch on and off, as in `Samples`.

    An image's mIoU is over the classes that are in its labels or in its prediction, so that their mean over a split is
    another number than the split's mIoU. One without a labelled pixel has none.
    """

    def __init__(self, *, folder: str, worst: int) -> None:
        self.folder, self.worst = Path(folder), worst

    def on_test_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._scored: list[_Scored] = []
        self._pictured: list[tuple[float, int]] = []  # a heap: the best of this rank's worst images is its first

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
        self._scored.append(_Scored(scores.mean_iou, scores.pixel_accuracy, int(batch["index"][0]), None))
        if self.worst == 0 or math.isnan(scores.mean_iou):
            return
        place = -scores.mean_iou, len(self._scored) - 1
        if len(self._pictured) < self.worst:
            heapq.heappush(self._pictured, place)
        elif place < self._pictured[0]:
            return
        else:
            _, dropped = heapq.heapreplace(self._pictured, place)
            self._scored[dropped] = self._scored[dropped]._replace(sample=None)
        self._scored[-1] = self._scored[-1]._replace(sample=Sample(outputs, batch, _LONGEST))

    def on_test_epoch_end(self, trainer: L.Trainer, pl_module: SegmentationModule) -> None:  # type: ignore[override]
        scored = sorted(
            _of_all_ranks(trainer, self._scored), key=lambda s: (math.isnan(s.mean_iou), s.mean_iou, s.position)
        )
        if not trainer.is_global_zero or not scored:
            return
        source = trainer.test_dataloaders.dataset.source  # type: ignore[union-attr]
        names = {s.position: hide(str((source.files(s.position) or (source.name(s.position),))[0])) for s in scored}
        with atomic_write(self.folder / "images.csv") as hidden, hidden.open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file)
            table.writerow(["image", "mIoU", "pixel_accuracy"])
            table.writerows([names[s.position], _number(s.mean_iou), _number(s.pixel_accuracy)] for s in scored)
        worst = [
            (s.sample, f"{names[s.position]}   mIoU {100 * s.mean_iou:.2f}")
            for s in scored[: self.worst]
            if s.sample is not None
        ]
        if worst:
            sheet = stack([add_title(sample.comparison(pl_module.spec), title) for sample, title in worst])
            with atomic_write(self.folder / "worst.png") as hidden:
                Image.fromarray(sheet).save(hidden, format="PNG")
            log_media.picture(trainer, "final/worst", sheet)
        if worst and log_media.wandb_run(trainer) is not None:
            images = [sample.wandb_image(pl_module.spec, Path(title).name) for sample, title in worst]
            log_media.media(trainer, {"final/worst": images})


def _of_all_ranks(trainer: L.Trainer, scored: list[_Scored]) -> list[_Scored]:
    if trainer.world_size == 1:
        return scored
    gathered: list[Any] = [None] * trainer.world_size
    torch.distributed.all_gather_object(gathered, scored)
    return [one for part in gathered for one in part]


def _number(x: float) -> str:
    return "" if math.isnan(x) else f"{x:.6f}"
