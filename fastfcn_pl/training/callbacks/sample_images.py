"""Overlays of fixed validation images, which show the progress of training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import wandb
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from fastfcn_pl.core.atomic_io import atomic_write
from fastfcn_pl.core.types import IGNORE, DatasetSpec
from fastfcn_pl.evaluation.visualize import METADATA_KEY, comparison, displayed, error_labels, zoom_factor
from fastfcn_pl.training.callbacks import log_media
from fastfcn_pl.training.module import SegmentationModule

_MAX_SIDE = 2048
_ERROR_LABELS = {0: "right", 1: "wrong", IGNORE: "ignored"}


class Samples(L.Callback):
    """Show `count` images, evenly spread over the split, with truth, prediction and error.

    Validations send them to the loggers; in W&B they have masks that can be switched on and off. The final scoring
    writes one PNG file per image to `folder`. Only images that rank 0 scores are shown.
    """

    def __init__(self, *, folder: str, count: int) -> None:
        self.folder, self.count = Path(folder), count

    def on_validation_batch_end(  # type: ignore[override]
        self,
        trainer: L.Trainer,
        pl_module: SegmentationModule,
        outputs: dict[str, Tensor],
        batch: dict[str, Tensor],
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        position = self._position(trainer, trainer.num_val_batches[0], batch_idx)
        if position is None or trainer.sanity_checking:
            return
        key, sample = f"val/samples/{position}", Sample(outputs, batch, pl_module.spec)
        if log_media.wandb_run(trainer) is not None:
            log_media.log_wandb(trainer, {key: sample.wandb_image()})
        if log_media.takes_pictures(trainer):
            log_media.log_picture(trainer, key, sample.comparison())

    def on_test_batch_end(  # type: ignore[override]
        self,
        trainer: L.Trainer,
        pl_module: SegmentationModule,
        outputs: dict[str, Tensor],
        batch: dict[str, Tensor],
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        position = self._position(trainer, trainer.num_test_batches[0], batch_idx)
        if position is not None:
            sample = Sample(outputs, batch, pl_module.spec)
            metadata = PngInfo()
            metadata.add_text(METADATA_KEY, json.dumps(sample.metadata()))
            image = Image.fromarray(sample.comparison())
            with atomic_write(self.folder / f"{position}.png") as hidden:
                image.save(hidden, format="PNG", pnginfo=metadata)

    def _position(self, trainer: L.Trainer, batches: int | float, batch_idx: int) -> int | None:
        """Return the position of this batch among the `count` shown images, or None if it is not shown."""
        if trainer.global_rank != 0:
            return None
        chosen = np.linspace(0, batches - 1, min(self.count, int(batches))).round().astype(int).tolist()
        return chosen.index(batch_idx) if batch_idx in chosen else None


class Sample:
    """The first image of a batch, on the CPU: `image` `(H, W, 3)`, `target` and `prediction` `(H, W)`, all uint8.

    Of bands it shows those that the data set displays. An image with a side longer than `max_side` is subsampled by an
    integer stride.
    """

    def __init__(
        self, outputs: dict[str, Tensor], batch: dict[str, Tensor], spec: DatasetSpec, max_side: int = _MAX_SIDE
    ) -> None:
        self.spec = spec
        step = -(-max(batch["target"].shape[-2:]) // max_side)
        self.image = displayed(batch["image"][0, :, ::step, ::step].permute(1, 2, 0).cpu().numpy(), spec)
        self.target = batch["target"][0, ::step, ::step].cpu().numpy()
        self.prediction = outputs["prediction"][0, ::step, ::step].cpu().numpy().astype(np.uint8)

    def metadata(self) -> dict[str, Any]:
        """Return the panel height and the colours of the visible classes, for the report that splits the image."""
        visible = np.union1d(np.unique(self.target), np.unique(self.prediction))
        return {
            "height": self.image.shape[0] * zoom_factor(self.image.shape[1]),
            "colors": {self.spec.classes[c]: self.spec.palette[c] for c in visible if c != IGNORE},
        }

    def comparison(self) -> np.ndarray:
        return comparison(self.image, self.target, self.prediction, self.spec)

    def wandb_image(self, caption: str | None = None) -> wandb.Image:
        """Return the image with the masks `truth`, `prediction` and `error`.

        It is a JPEG, since compressing a PNG takes noticeable training time.
        """
        classes = {**dict(enumerate(self.spec.classes)), IGNORE: "ignored"}
        masks = {
            "truth": {"mask_data": self.target, "class_labels": classes},
            "prediction": {"mask_data": self.prediction, "class_labels": classes},
            "error": {"mask_data": error_labels(self.prediction, self.target), "class_labels": _ERROR_LABELS},
        }
        return wandb.Image(self.image, masks=masks, caption=caption, file_type="jpg")
