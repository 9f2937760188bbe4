"""Geometric augmentation: draw one plan, then resample only the region that the crop keeps, once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import cos, radians, sin

import numpy as np
from PIL import Image, ImageFilter
from torchvision.transforms import v2

from fastfcn_pl.core.types import IGNORE, Box, UserError
from fastfcn_pl.data.transforms.color import ColorSteps
from fastfcn_pl.data.transforms.image_ops import gaussian_blur, hflip, histogram, pad, resize_region, select


@dataclass(frozen=True)
class GeometricPlan:
    """Scale to size `scaled`, rotate by `angle`, crop to size `crop` at `corner`, flip, pad.

    Sizes are `(width, height)` in pixels of the scaled image. Rotation is counter-clockwise in degrees about its
    centre and keeps its size. If the crop is larger than the image, the result is padded at the right and bottom,
    flipped or not.
    """

    scaled: tuple[int, int]
    corner: tuple[int, int]
    crop: tuple[int, int]
    flip: bool
    angle: float = 0.0

    def apply_to_image(self, image: np.ndarray, fill: Sequence[int]) -> np.ndarray:
        """Return the augmented image `(H, W, 3)`, resampled once, bilinearly with antialiasing."""
        return pad(self.apply_without_padding(image, fill), self.crop, fill)

    def apply_without_padding(self, image: np.ndarray, fill: Sequence[int]) -> np.ndarray:
        """Return the crop without its padding; `fill` is the colour of the corners that rotation leaves empty."""
        if self.angle:
            filtered = _box_filter(Image.fromarray(image), self.scaled)
            pixels = np.asarray(self._rotate(filtered, Image.Resampling.BILINEAR, tuple(fill)))
        else:
            pixels = resize_region(image, self.scaled, self._covered_box())
        return hflip(pixels) if self.flip else pixels

    def apply_to_mask(self, mask: np.ndarray) -> np.ndarray:
        """Return the augmented mask `(H, W)`, resampled to the nearest neighbour and padded with `IGNORE`."""
        if self.angle:
            labels = np.asarray(self._rotate(Image.fromarray(mask), Image.Resampling.NEAREST, IGNORE))
        else:
            left, top, right, bottom = self._covered_box()
            columns = _nearest(mask.shape[1], self.scaled[0])[left:right]
            labels = select(mask, _nearest(mask.shape[0], self.scaled[1])[top:bottom], columns)
        return pad(hflip(labels) if self.flip else labels, self.crop, [IGNORE])

    def _rotate(self, image: Image.Image, resample: Image.Resampling, fill: int | tuple[int, ...]) -> Image.Image:
        """Scale, rotate and crop at once, by the affine map from the crop to `image`."""
        left, top, right, bottom = self._covered_box()
        (width, height), angle = self.scaled, radians(self.angle)
        x, y = image.width / width, image.height / height
        c, s, u, v = cos(angle), sin(angle), left - width / 2, top - height / 2
        affine = (x * c, -x * s, x * (c * u - s * v + width / 2), y * s, y * c, y * (s * u + c * v + height / 2))
        size = (right - left, bottom - top)
        return image.transform(size, Image.Transform.AFFINE, affine, resample, fillcolor=fill)

    @property
    def visible(self) -> tuple[slice, slice]:
        """Rows and columns of the result that are not padding."""
        left, top, right, bottom = self._covered_box()
        return slice(bottom - top), slice(right - left)

    def _covered_box(self) -> Box:
        """Return the part of the crop that the scaled image covers."""
        (left, top), (width, height) = self.corner, self.crop
        return Box(left, top, min(left + width, self.scaled[0]), min(top + height, self.scaled[1]))


def _nearest(length: int, scaled: int) -> np.ndarray:
    """Return the source indices `(scaled,)` that Pillow's nearest-neighbour resize would choose."""
    steps = np.full(scaled, length / scaled)
    steps[0] /= 2
    return np.add.accumulate(steps).astype(np.intp)  # rounding errors must add up as in Pillow


def _box_filter(image: Image.Image, scaled: tuple[int, int]) -> Image.Image:
    """Average over the area of a scaled pixel, so that shrinking by sampling does not alias."""
    width = image.width / scaled[0]
    return image.filter(ImageFilter.BoxBlur((width - 1) / 2)) if width > 1 else image


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


class RandomScaleCrop:
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


class RandomResizeCrop:
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


class RandomFlip:
    """Flip image and mask left to right with `probability`, for images of the same size; `color` is as above."""

    def __init__(self, *, probability: float, color: Sequence[v2.Transform] = ()) -> None:
        self.probability, self.color = _probability("probability", probability), ColorSteps(color)

    def __call__(self, image: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        if rng.random() < self.probability:
            image, mask = hflip(image), hflip(mask)
        return self.color(image, rng), mask
