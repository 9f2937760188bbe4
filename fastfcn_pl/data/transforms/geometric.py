"""Augmentation: geometry is drawn first, as one plan; only the region that the crop keeps is resampled, once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import cos, radians, sin

import numpy as np
from PIL import Image, ImageFilter

from fastfcn_pl.core.types import IGNORE, UserError
from fastfcn_pl.data.transforms.image_ops import Box, blurred, counted, mirrored, padded, resized_region, taken


@dataclass(frozen=True)
class GeometricPlan:
    """Scale to `scaled`, turn by `angle`, crop `crop` at `corner`, flip, pad.

    Sizes are `(width, height)` in pixels of the scaled image, which turns about its centre, counter-clockwise by
    degrees, and keeps its size. Where the crop reaches beyond it, the result is padded at the right and bottom, flipped
    or not.
    """

    scaled: tuple[int, int]
    corner: tuple[int, int]
    crop: tuple[int, int]
    flip: bool
    angle: float = 0.0

    def image(self, image: np.ndarray, fill: Sequence[int]) -> np.ndarray:
        """Return the crop `(H, W, 3)` of a bilinear, antialiased resize; the same as resizing the whole image first.

        To turn it, too, takes no second resampling: it is averaged, then read once.
        """
        return padded(self.visible(image, fill), self.crop, fill)

    def visible(self, image: np.ndarray, fill: Sequence[int]) -> np.ndarray:
        """Return the crop without its padding; `fill` is the colour of the corners that a turn leaves empty."""
        if self.angle:
            averaged = _averaged(Image.fromarray(image), self.scaled)
            pixels = np.asarray(self._turn(averaged, Image.Resampling.BILINEAR, tuple(fill)))
        else:
            pixels = resized_region(image, self.scaled, self._visible())
        return mirrored(pixels) if self.flip else pixels

    def mask(self, mask: np.ndarray) -> np.ndarray:
        """Return the crop `(H, W)` of a nearest-neighbour resize of `mask`, padded with `IGNORE`."""
        if self.angle:
            labels = np.asarray(self._turn(Image.fromarray(mask), Image.Resampling.NEAREST, IGNORE))
        else:
            left, top, right, bottom = self._visible()
            columns = _nearest(mask.shape[1], self.scaled[0])[left:right]
            labels = taken(mask, _nearest(mask.shape[0], self.scaled[1])[top:bottom], columns)
        return padded(mirrored(labels) if self.flip else labels, self.crop, [IGNORE])

    def _turn(self, image: Image.Image, resample: Image.Resampling, fill: int | tuple[int, ...]) -> Image.Image:
        """Scale, turn and crop at once, by the affine map from points of the crop to points of `image`."""
        left, top, right, bottom = self._visible()
        (width, height), turn = self.scaled, radians(self.angle)
        x, y = image.width / width, image.height / height
        c, s, u, v = cos(turn), sin(turn), left - width / 2, top - height / 2
        affine = (x * c, -x * s, x * (c * u - s * v + width / 2), y * s, y * c, y * (s * u + c * v + height / 2))
        size = (right - left, bottom - top)
        return image.transform(size, Image.Transform.AFFINE, affine, resample, fillcolor=fill)

    def _visible(self) -> Box:
        """Return left, top, right and bottom of the part of the crop that the scaled image covers."""
        (left, top), (width, height) = self.corner, self.crop
        return left, top, min(left + width, self.scaled[0]), min(top + height, self.scaled[1])


def _nearest(length: int, scaled: int) -> np.ndarray:
    """Return the index `(scaled,)` of the source pixel of each scaled one, as Pillow's nearest resize chooses it."""
    steps = np.full(scaled, length / scaled)
    steps[0] /= 2
    return np.add.accumulate(steps).astype(np.intp)  # added one by one, as Pillow does: rounding decides at borders


def _averaged(image: Image.Image, scaled: tuple[int, int]) -> Image.Image:
    """Return the image with each pixel the mean over the area of a scaled one, so that reading fewer does not alias."""
    width = image.width / scaled[0]
    return image.filter(ImageFilter.BoxBlur((width - 1) / 2)) if width > 1 else image


def _size(crop_size: int | Sequence[int]) -> tuple[int, int]:
    """Return width and height of a `crop_size`, a length or `[height, width]`."""
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
    """Draw where a crop begins, anywhere in an image of size `scaled`; at 0 where it is larger than that."""
    left, top = (
        int(rng.integers(0, max(0, side - length), endpoint=True)) for side, length in zip(scaled, crop, strict=True)
    )
    return left, top


class RandomScaleCrop:
    """The paper's augmentation: random scale, crop and flip, then Gaussian blur (official `encoding/datasets/base.py`).

    The short side becomes a random length, `scale` times `base_size` pixels (`null`: times its own length);
    `crop_size` is a length or `[height, width]`; images turn by up to `rotation` degrees either way (official
    `encoding/datasets/cityscapes.py`); `fill` is the colour (RGB) of what they leave empty, there and at the right and
    bottom. Blur comes with probability `blur_probability` and a radius uniform in 0 to `blur_radius`.
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

    def __call__(self, image: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        plan = self.plan((image.shape[1], image.shape[0]), rng)
        pixels = plan.image(image, self.fill)
        if rng.random() < self.blur_probability:
            pixels = blurred(pixels, rng.uniform(0, self.blur_radius))
        return pixels, plan.mask(mask)

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


class RandomResizeCrop:
    """mmsegmentation's augmentation (1.2.2): random resize, a crop that no class fills, flip, colours, padding.

    The image becomes as large as fits into `scale` (long and short side; its ratio is kept) times a factor from
    `ratio_range`. Of `1 + tries` random crops of `crop_size` (a length or `[height, width]`) the first is taken where
    several classes are labelled, none of them on a share of `cat_max_ratio` or more; else the last one. `photometric`
    changes the colours of what the crop shows; `fill` is the colour (RGB) of the rest, at the right and bottom.
    Shrinking is antialiased, which theirs is not.
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
    ) -> None:
        if len(scale) != 2 or min(scale) < 1:
            raise UserError(f"data.augmentation.scale={list(scale)}: give the longest long and short side in pixels")
        if len(ratio_range) != 2 or not 0 < ratio_range[0] <= ratio_range[1]:
            raise UserError(
                f"data.augmentation.ratio_range={list(ratio_range)}: give a smallest and a largest factor above 0"
            )
        self.scale, self.crop = (max(scale), min(scale)), _size(crop_size)
        self.ratio_range = ratio_range[0], ratio_range[1]
        if cat_max_ratio <= 0:
            raise UserError(f"data.augmentation.cat_max_ratio={cat_max_ratio}: give a share above 0; 1 is no limit")
        if tries < 0:
            raise UserError(f"data.augmentation.tries={tries}: give how many more crops to draw, or 0")
        self.cat_max_ratio, self.tries, self.photometric, self.fill = cat_max_ratio, tries, photometric, _color(fill)
        self.flip_probability = _probability("flip_probability", flip_probability)

    def __call__(self, image: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        scaled = self.scaled((image.shape[1], image.shape[0]), rng)
        flip = bool(rng.random() < self.flip_probability)
        for _ in range(1 + self.tries):
            plan = GeometricPlan(scaled, _corner(scaled, self.crop, rng), self.crop, flip)
            labels = plan.mask(mask)
            if self.is_varied(labels):
                break
        pixels = plan.visible(image, self.fill)
        if self.photometric is not None:
            pixels = self.photometric(pixels, rng)
        return padded(pixels, self.crop, self.fill), labels

    def scaled(self, size: tuple[int, int], rng: np.random.Generator) -> tuple[int, int]:
        """Draw the size `(width, height)` that an image of `size` becomes."""
        ratio = rng.uniform(*self.ratio_range)
        long, short = (int(side * ratio) for side in self.scale)
        factor = min(long / max(size), short / min(size))
        return max(1, int(size[0] * factor + 0.5)), max(1, int(size[1] * factor + 0.5))

    def is_varied(self, labels: np.ndarray) -> bool:
        """Return whether several classes are labelled in the crop, and none has too large a share of it."""
        counts = counted(labels)[:IGNORE]
        return self.cat_max_ratio >= 1 or bool(
            (counts > 0).sum() > 1 and counts.max() < self.cat_max_ratio * counts.sum()
        )


class RandomFlip:
    """Mirror image and mask left to right with `probability`: for images that all have one size already."""

    def __init__(self, *, probability: float) -> None:
        self.probability = _probability("probability", probability)

    def __call__(self, image: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        return (mirrored(image), mirrored(mask)) if rng.random() < self.probability else (image, mask)
