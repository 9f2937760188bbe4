"""Prediction from Python: `labels = Predictor("best.ckpt")("photo.jpg")`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fastfcn_pl.acceleration.inference import optimize_for_inference
from fastfcn_pl.core.types import UserError
from fastfcn_pl.data.io.band_files import band_pixels
from fastfcn_pl.data.io.image_files import rgb_pixels
from fastfcn_pl.engine.checkpoint import load
from fastfcn_pl.evaluation.score_map import ScoreMap
from fastfcn_pl.tools.device import autocast_dtype, find_device
from fastfcn_pl.tools.export import formats

ImageLike = str | Path | Image.Image | np.ndarray | Sequence[str | Path]


class Predictor:
    """Predicts labels with the network and protocol of a checkpoint, as `load` takes it, or exported file.

    `device` `auto` uses a GPU if there is one. `precision` has Lightning's values; exported files have a fixed one.
    `trust` lists packages whose classes the checkpoint may name, or is true for a trusted file. Without `accelerate`,
    the plain network runs.

    >>> import fastfcn_pl
    >>> predictor = fastfcn_pl.Predictor("runs/camvid/checkpoints/best.ckpt", device="cpu")
    >>> labels = predictor("photo.jpg")
    >>> labels.shape, labels.dtype, predictor.spec.classes[0]
    ((48, 64), dtype('uint8'), 'sky')
    """

    def __init__(
        self,
        checkpoint: str | Path,
        device: str = "auto",
        precision: str = "32-true",
        trust: Any = (),
        accelerate: bool = True,
    ) -> None:
        dtype = autocast_dtype(precision)
        self.device = find_device(device)
        self.exported = formats.load(checkpoint, self.device, trust) if formats.is_exported(checkpoint) else None
        if self.exported is None:
            self.module = load(checkpoint, trust=trust).to(self.device)
            self.network = optimize_for_inference(
                self.module.model, device=self.device, dtype=dtype, accelerate=accelerate
            )
        self.spec = self.module.spec if self.exported is None else self.exported.spec

    def __call__(self, image: ImageLike) -> np.ndarray:
        """Return class indices `(H, W)`, uint8, of an image or a file, which is rotated by its EXIF orientation.

        If the network takes bands, give a file, a list of one file for each modality, or an array `(H, W, bands)` or
        `(bands, H, W)` of exactly these bands in the units of the training data. Otherwise images are RGB.

        An array has uint8 values, or floats from 0 to 1. Its last axis holds the channels if its length is 1 (grey), 3
        (RGB) or 4 (RGBA, whose alpha is dropped), else its first axis does; `(H, W)` is grey. Raises UserError for any
        other, or if a file cannot be read.
        """
        if self.exported is not None:
            return self.exported.labels(self._tensor(image))[0].byte().cpu().numpy()
        return self.scores(image).labels()[0].byte().cpu().numpy()

    def scores(self, image: ImageLike) -> ScoreMap:
        """Return the class scores under the checkpoint's protocol.

        Raises UserError for an exported file that outputs labels only.
        """
        x = self._tensor(image)
        if self.exported is not None:
            if self.exported.gives != "logits":
                raise UserError("the exported file outputs labels, not probabilities: export it with gives=logits")
            return ScoreMap.of(self.exported.run(x))
        with torch.no_grad():
            return self.module.protocol(self.network, self.module.normalize(x), (x.shape[2], x.shape[3]))

    def _tensor(self, image: ImageLike) -> Tensor:
        """Return an image as uint8 `(1, 3, H, W)`, or bands as float32 `(1, C, H, W)`."""
        pixels = rgb_pixels(image) if self.spec.bands is None else band_pixels(image, self.spec.bands)
        return torch.from_numpy(pixels.transpose(2, 0, 1).copy())[None].to(self.device)
