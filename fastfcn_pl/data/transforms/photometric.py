"""Colours of augmentation: brightness, contrast, saturation and hue."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fastfcn_pl.core.types import UserError
from fastfcn_pl.data.transforms.image_ops import hsv, mapped, rgb


class PhotometricDistortion:
    """mmsegmentation's colours (`PhotoMetricDistortion` of 1.2.2), which come from SSD; each change has p = 0.5.

    Brightness adds up to `brightness_delta` either way; contrast multiplies by a factor from `contrast`, before or
    after what follows; saturation is multiplied by a factor from `saturation`; hue is turned by up to `hue_delta` of
    the 180 steps of its circle. Between the changes numbers are cut off to whole ones, as theirs are.
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
        """Return the image `(H, W, 3)` in other colours."""
        levels, steps = np.arange(256, dtype=np.float32), np.arange(256)
        before = after = levels
        if rng.random() < 0.5:
            before = _whole(before + rng.uniform(-self.brightness_delta, self.brightness_delta))
        if rng.random() < 0.5:
            factor = rng.uniform(*self.contrast)
            if rng.random() < 0.5:
                before = _whole(before * factor)
            else:
                after = _whole(after * factor)
        tables = np.stack([steps] * 3, axis=1)
        if rng.random() < 0.5:
            tables[:, 1] = _whole(levels * rng.uniform(*self.saturation))
        if rng.random() < 0.5 and self.hue_delta:
            tables[:, 0] = (steps + rng.integers(-self.hue_delta, self.hue_delta)) % 180
        if (tables != steps[:, None]).any():
            turned = rgb(mapped(hsv(mapped(image, before.astype(np.uint8))), tables.astype(np.uint8)))
            return mapped(turned, after.astype(np.uint8))
        return mapped(image, after[before.astype(int)].astype(np.uint8))


def _whole(levels: np.ndarray) -> np.ndarray:
    return np.floor(levels.clip(0, 255))
