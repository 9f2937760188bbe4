"""Geometric augmentation: draw one plan, then apply it once."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Self

import numpy as np
from torchvision.transforms import v2

from fastfcn_pl.core.types import IGNORE, Bands, UserError
from fastfcn_pl.data.transforms.color import ColorSteps
from fastfcn_pl.data.transforms.geometric_plan import GeometricPlan
from fastfcn_pl.data.transforms.image_ops import gaussian_blur, hflip, histogram, pad
from fastfcn_pl.data.transforms.photometric import PhotometricDistortion


def _size(crop_size: int | Sequence[int]) -> tuple[int, int]:
    """Return `(width, height)` of a `crop_size`, which is a length or `[height, width]`."""
    sides = [crop_size] * 2 if isinstance(crop_size, int) else list(crop_size)
    if len(sides) != 2 or min(sides) < 1:
        raise UserError(f"data.augmentation.crop_size={crop_size}: give a length or [height, width] in pixels")
    return sides[1], sides[0]


def _probability(key: str, value: float) -> float:
    if not 0 <= value <= 1:
        raise UserError(f"data.augmentation.{key}={value}: give a probability, 0 to 1")
    return value


def _color(fill: Sequence[int]) -> tuple[int, ...]:
    if len(fill) != 3 or not all(0 <= value <= 255 for value in fill):
        raise UserError(f"data.augmentation.fill={list(fill)}: give red, green and blue, 0 to 255")
    return tuple(fill)


def _corner(scaled: tuple[int, int], crop: tuple[int, int], rng: np.random.Generator) -> tuple[int, int]:
    """Draw the corner of a crop inside an image of size `scaled`; 0 along sides on which the crop is larger."""
    left, top = (
        int(rng.integers(0, max(0, side - length), endpoint=True)) for side, length in zip(scaled, crop, strict=True)
    )
    return left, top


class _WithColor:
    """Augmentation that ends in steps of `color`."""

    color: ColorSteps

    def for_bands(self, bands: Bands) -> Self:
        """Return a copy for images with `bands`; raises UserError if it changes them in a way that only RGB has."""
        adapted = copy.copy(self)
        adapted.color = self.color.for_bands(bands)
        return adapted


class _Cropping(_WithColor):
    """Augmentation that fills what an image does not cover with the colour `fill`, or with the mean of its bands."""

    fill: Sequence[float]

    def for_bands(self, bands: Bands) -> Self:
        adapted = super().for_bands(bands)
        adapted.fill, _ = bands.statistics
        return adapted


class RandomScaleCrop(_Cropping):
    """The paper's augmentation: random scale, crop and flip, then Gaussian blur (official `encoding/datasets/base.py`).

    The short side is resized to a random length of `scale` times `base_size` pixels, or times its own length if that
    is null. `crop_size` is a length or `[height, width]`. Images rotate by up to `rotation` degrees either way
    (official `encoding/datasets/cityscapes.py`). `fill` is the RGB colour of empty corners and padding. Blur has
    probability `blur_probability` and a radius uniform in 0 to `blur_radius`. `color` may add steps, see `ColorSteps`.
    """

    def __init__(
        self,
        *,
        base_size: int | None,
        scale: Sequence[float],
        crop_size: int | Sequence[int],
        rotation: float,
        flip_probability: float,
        blur_probability: float,
        blur_radius: float,
        fill: Sequence[int],
        color: Sequence[v2.Transform] = (),  # missing in checkpoints written before this option existed
    ) -> None:
        if len(scale) != 2 or not 0 < scale[0] <= scale[1]:
            raise UserError(f"data.augmentation.scale={list(scale)}: give a smallest and a largest factor above 0")
        if not 0 <= rotation <= 180:
            raise UserError(f"data.augmentation.rotation={rotation}: give the largest angle, 0 to 180 degrees")
        if base_size is not None and base_size < 1:
            raise UserError(f"data.augmentation.base_size={base_size}: give a length in pixels, or null")
        if blur_radius < 0:
            raise UserError(f"data.augmentation.blur_radius={blur_radius}: give the largest radius in pixels")
        self.base_size, self.scale, self.crop = base_size, (scale[0], scale[1]), _size(crop_size)
        self.rotation, self.blur_radius, self.fill = rotation, blur_radius, _color(fill)
        self.flip_probability = _probability("flip_probability", flip_probability)
        self.blur_probability = _probability("blur_probability", blur_probability)
        self.color = ColorSteps(color)

    def __call__(self, image: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        plan = self.plan((image.shape[1], image.shape[0]), rng)
        pixels = plan.apply_to_image(image, self.fill)
        if rng.random() < self.blur_probability:
            pixels = gaussian_blur(pixels, rng.uniform(0, self.blur_radius))
        return self.color(pixels, rng, plan.visible), plan.apply_to_mask(mask)

    def plan(self, size: tuple[int, int], rng: np.random.Generator) -> GeometricPlan:
        """Draw the geometry for an image of `size` `(width, height)`."""
        short = min(size)
        base = self.base_size or short
        length = rng.integers(max(1, int(base * self.scale[0])), int(base * self.scale[1]), endpoint=True)
        width, height = (max(1, int(side * length / short)) for side in size)
        corner = _corner((width, height), self.crop, rng)
        flip = bool(rng.random() < self.flip_probability)
        angle = float(rng.uniform(-self.rotation, self.rotation)) if self.rotation else 0.0
        return GeometricPlan((width, height), corner, self.crop, flip, angle)


class RandomResizeCrop(_Cropping):
    """mmsegmentation's augmentation (1.2.2): random resize, crop with several classes, flip, colours, padding.

    The image is resized to fit into `scale` (long and short side) times a factor from `ratio_range`, keeping its
    aspect ratio. Up to `1 + tries` crops of `crop_size` (a length or `[height, width]`) are drawn until one shows
    several classes, each with a share below `cat_max_ratio`; otherwise the last is used. `photometric` changes the
    colours of the visible part, and `fill` is the RGB colour of the padding. Unlike mmsegmentation's, shrinking is
    antialiased. `color` may add steps, see `ColorSteps`.
    """

    def __init__(
        self,
        *,
        scale: Sequence[int],
        ratio_range: Sequence[float],
        crop_size: int | Sequence[int],
        cat_max_ratio: float,
        tries: int,
        flip_probability: float,
        photometric: Callable[[np.ndarray, np.random.Generator], np.ndarray] | None,
        fill: Sequence[int],
        color: Sequence[v2.Transform] = (),  # missing in checkpoints written before this option existed
    ) -> None:
        if len(scale) != 2 or min(scale) < 1:
            raise UserError(f"data.augmentation.scale={list(scale)}: give the long and the short side in pixels")
        if len(ratio_range) != 2 or not 0 < ratio_range[0] <= ratio_range[1]:
            raise UserError(
                f"data.augmentation.ratio_range={list(ratio_range)}: give a smallest and a largest factor above 0"
            )
        self.scale, self.crop = (max(scale), min(scale)), _size(crop_size)
        self.ratio_range = ratio_range[0], ratio_range[1]
        if cat_max_ratio <= 0:
            raise UserError(f"data.augmentation.cat_max_ratio={cat_max_ratio}: give a share above 0; 1 means no limit")
        if tries < 0:
            raise UserError(f"data.augmentation.tries={tries}: give the number of extra crops to draw, 0 or more")
        self.cat_max_ratio, self.tries, self.photometric, self.fill = cat_max_ratio, tries, photometric, _color(fill)
        self.flip_probability = _probability("flip_probability", flip_probability)
        self.color = ColorSteps(color)

    def __call__(self, image: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        scaled = self.draw_size((image.shape[1], image.shape[0]), rng)
        flip = bool(rng.random() < self.flip_probability)
        for _ in range(1 + self.tries):
            plan = GeometricPlan(scaled, _corner(scaled, self.crop, rng), self.crop, flip)
            labels = plan.apply_to_mask(mask)
            if self.is_varied(labels):
                break
        pixels = plan.apply_without_padding(image, self.fill)
        if self.photometric is not None:
            pixels = self.photometric(pixels, rng)
        return self.color(pad(pixels, self.crop, self.fill), rng, plan.visible), labels

    def for_bands(self, bands: Bands) -> Self:
        if isinstance(self.photometric, PhotometricDistortion):
            raise UserError(
                "data.augmentation.photometric changes hue and saturation, which data.bands do not have: set it to null"
            )
        return super().for_bands(bands)

    def draw_size(self, size: tuple[int, int], rng: np.random.Generator) -> tuple[int, int]:
        """Draw the new size `(width, height)` of an image of `size`."""
        ratio = rng.uniform(*self.ratio_range)
        long, short = (int(side * ratio) for side in self.scale)
        factor = min(long / max(size), short / min(size))
        return max(1, int(size[0] * factor + 0.5)), max(1, int(size[1] * factor + 0.5))

    def is_varied(self, labels: np.ndarray) -> bool:
        """Return whether the crop has several classes, none with too large a share."""
        counts = histogram(labels)[:IGNORE]
        return self.cat_max_ratio >= 1 or bool(
            (counts > 0).sum() > 1 and counts.max() < self.cat_max_ratio * counts.sum()
        )


class RandomFlip(_WithColor):
    """Flip image and mask left to right with `probability`, for images of the same size; `color` is as above."""

    def __init__(self, *, probability: float, color: Sequence[v2.Transform] = ()) -> None:
        self.probability, self.color = _probability("probability", probability), ColorSteps(color)

    def __call__(self, image: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        if rng.random() < self.probability:
            image, mask = hflip(image), hflip(mask)
        return self.color(image, rng), mask
