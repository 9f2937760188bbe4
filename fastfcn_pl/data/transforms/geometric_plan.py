"""Plan of a geometric augmentation, which resamples only the region that the crop keeps, once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import cos, radians, sin

import numpy as np
from PIL import Image, ImageFilter

from fastfcn_pl.core.types import IGNORE, Box
from fastfcn_pl.data.transforms.image_ops import box_blur, hflip, pad, resize_region, select


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

    def apply_to_image(self, image: np.ndarray, fill: Sequence[float]) -> np.ndarray:
        """Return the augmented image `(H, W, C)`, resampled once, bilinearly with antialiasing."""
        return pad(self.apply_without_padding(image, fill), self.crop, fill)

    def apply_without_padding(self, image: np.ndarray, fill: Sequence[float]) -> np.ndarray:
        """Return the crop without its padding; `fill` is the colour of the corners that rotation leaves empty."""
        if self.angle and image.dtype == np.uint8:
            filtered = _box_filter(Image.fromarray(image), self.scaled)
            pixels = np.asarray(self._rotate(filtered, Image.Resampling.BILINEAR, tuple(fill)))
        elif self.angle:
            radius = _radius(image.shape[1], self.scaled)
            bands = (box_blur(band, radius) if radius > 0 else band for band in np.moveaxis(image, 2, 0))
            rotated = [
                self._rotate(Image.fromarray(band), Image.Resampling.BILINEAR, value)
                for band, value in zip(bands, fill, strict=True)
            ]
            pixels = np.stack([np.asarray(band) for band in rotated], axis=2)
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

    def _rotate(self, image: Image.Image, resample: Image.Resampling, fill: float | tuple[float, ...]) -> Image.Image:
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
    radius = _radius(image.width, scaled)
    return image.filter(ImageFilter.BoxBlur(radius)) if radius > 0 else image


def _radius(width: int, scaled: tuple[int, int]) -> float:
    """Return half of what a scaled pixel is wider than a pixel of an image of `width`."""
    return (width / scaled[0] - 1) / 2
