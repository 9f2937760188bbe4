"""Scores of a neck's approximation of a dilated backbone's features."""

from __future__ import annotations

from pathlib import Path

import lightning as L
import numpy as np
from torch import Tensor

from fastfcn_pl.core.atomic_io import atomic_write
from fastfcn_pl.core.types import UserError
from fastfcn_pl.data.samplers import BLANK
from fastfcn_pl.evaluation.approximation import FeatureSums, approximation_scores, image_table
from fastfcn_pl.training.callbacks.image_scores import gather
from fastfcn_pl.training.module import SegmentationModule


class ApproximationScores(L.Callback):
    """Score the features of `model=approximation`, after each validation and in the final scoring.

    `approximation_error` (1 - R^2) and `approximation_cosine` are logged. Features are those of whole images, whatever
    the protocol. The final sums of each image go to `folder/approximation.npz`: `sums` `(N, 4)` as in
    `evaluation.approximation.image_table`, and `position`, the place of each image in the split. Reports compare runs
    by them.
    """

    def __init__(self, *, folder: str) -> None:
        self.folder = Path(folder)

    def setup(self, trainer: L.Trainer, pl_module: SegmentationModule, stage: str) -> None:  # type: ignore[override]
        if "approximation" not in pl_module.model.outputs:
            raise UserError("callbacks=approximation scores an approximation of features: set model=approximation, too")

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._images: list[FeatureSums] = []

    def on_test_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._images = []

    def on_validation_batch_end(  # type: ignore[override]
        self,
        trainer: L.Trainer,
        pl_module: SegmentationModule,
        outputs: dict[str, Tensor] | None,
        batch: dict[str, Tensor],
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        position = int(batch["index"][0])
        if position == BLANK:
            return
        with trainer.precision_plugin.forward_context():
            output = pl_module.model(pl_module.normalize(batch["image"]), extras=True)
        (approximated,), (true,) = output.extras["approximation"]
        self._images.append(FeatureSums.of(approximated, true, position))

    on_test_batch_end = on_validation_batch_end  # type: ignore[assignment]

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: SegmentationModule) -> None:  # type: ignore[override]
        self._log(trainer, pl_module, "val")

    def on_test_epoch_end(self, trainer: L.Trainer, pl_module: SegmentationModule) -> None:  # type: ignore[override]
        images = self._log(trainer, pl_module, "final")
        if images and trainer.is_global_zero:
            with atomic_write(self.folder / "approximation.npz") as hidden, hidden.open("wb") as file:
                np.savez(file, sums=image_table(images), position=np.array([image.position for image in images]))

    def _log(self, trainer: L.Trainer, pl_module: SegmentationModule, stage: str) -> list[FeatureSums]:
        """Log the scores of all ranks' images, and return the sums of these images in the order of the split."""
        images = sorted(gather(trainer, self._images), key=lambda image: image.position)
        if images:
            r2, cosine = approximation_scores(image_table(images).sum(0)).tolist()
            pl_module.log_dict({f"{stage}/approximation_error": 1 - r2, f"{stage}/approximation_cosine": cosine})
        return images
