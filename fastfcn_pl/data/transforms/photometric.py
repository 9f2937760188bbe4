"""Photometric augmentation: brightness, contrast, saturation and hue."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fastfcn_pl.core.types import UserError
from fastfcn_pl.data.transforms.image_ops import apply_lut, hsv_to_rgb, rgb_to_hsv


class PhotometricDistortion:
    """mmsegmentation's `PhotoMetricDistortion` (1.2.2), originally from SSD; each change has probability 0.5.

    Brightness adds up to `brightness_delta` either way. Contrast multiplies by a factor from `contrast`, before or
    after the changes of saturation and hue. Saturation is multiplied by a factor from `saturation`. Hue is shifted by
    up to `hue_delta` of the 180 steps of its circle. Values are truncated to integers after each change, as there.
    """

    def __init__(
        self, *, brightness_delta: float, contrast: Sequence[float], saturation: Sequence[float], hue_delta: int
    ) -> None:
        for name, factors in (("contrast", contrast), ("saturation", saturation)):
            if len(factors) != 2 or not 0 <= factors[0] <= factors[1]:
                raise UserError(
                    f"data.augmentation.photometric.{name}={list(factors)}: give a smallest and a largest factor"
                )
        self.brightness_delta, self.hue_delta = brightness_delta, hue_delta
        self.contrast, self.saturation = (contrast[0], contrast[1]), (saturation[0], saturation[1])

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return the image `(H, W, 3)` with randomly changed colours."""
        levels, steps = np.arange(256, dtype=np.float32), np.arange(256)
        before = after = levels
        if rng.random() < 0.5:
            before = _truncate(before + rng.uniform(-self.brightness_delta, self.brightness_delta))
        if rng.random() < 0.5:
            factor = rng.uniform(*self.contrast)
            if rng.random() < 0.5:
                before = _truncate(before * factor)
            else:
                after = _truncate(after * factor)
        tables = np.stack([steps] * 3, axis=1)
        if rng.random() < 0.5:
            tables[:, 1] = _truncate(levels * rng.uniform(*self.saturation))
        if rng.random() < 0.5 and self.hue_delta:
            tables[:, 0] = (steps + rng.integers(-self.hue_delta, self.hue_delta)) % 180
        if (tables != steps[:, None]).any():
            hsv = apply_lut(rgb_to_hsv(apply_lut(image, before.astype(np.uint8))), tables.astype(np.uint8))
            return apply_lut(hsv_to_rgb(hsv), after.astype(np.uint8))
        return apply_lut(image, after[before.astype(int)].astype(np.uint8))


def _truncate(levels: np.ndarray) -> np.ndarray:
    return np.floor(levels.clip(0, 255))
