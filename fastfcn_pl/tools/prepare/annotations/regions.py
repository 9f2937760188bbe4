"""Regions of an image as annotation tools store them, drawn to masks.

A pixel belongs to a polygon if its centre lies inside by the even-odd rule, so a ring that crosses itself or runs back
along a cut leaves a hole. Column `i` covers the coordinates from `i` to `i + 1`. Polygons that share an edge neither
overlap nor leave a gap. What lies outside the image is cut off.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

from fastfcn_pl.data.io import rle

_FARTHEST = 1e7
"""Largest plausible coordinate."""
_ELLIPSE_POINTS = 720


class Patch(NamedTuple):
    """A mask `(h, w)`, bool, whose first pixel is at row `top` and column `left` of the image."""

    top: int
    left: int
    mask: np.ndarray


class Region(Protocol):
    """Pixels that an annotation covers."""

    def draw(self, height: int, width: int) -> Patch:
        """Return the pixels in an image of this size; raises ValueError if the region does not fit it."""


@dataclass(frozen=True)
class Polygons:
    """Union of polygons, each `(n, 2)`: x and y of its corners in pixels."""

    rings: Sequence[np.ndarray]

    def draw(self, height: int, width: int) -> Patch:
        patches = [fill(ring, height, width) for ring in self.rings]
        if len(patches) == 1:
            return patches[0]
        top = min((patch.top for patch in patches), default=0)
        left = min((patch.left for patch in patches), default=0)
        bottom = max((patch.top + patch.mask.shape[0] for patch in patches), default=0)
        right = max((patch.left + patch.mask.shape[1] for patch in patches), default=0)
        union = np.zeros((bottom - top, right - left), bool)
        for patch in patches:
            window(union, patch.top - top, patch.left - left, patch.mask)[...] |= patch.mask
        return Patch(top, left, union)


@dataclass(frozen=True)
class RunLengths:
    """COCO's run lengths, as a list or as text, of a mask of `size` (height, width)."""

    size: tuple[int, int]
    counts: str | Sequence[int]

    def draw(self, height: int, width: int) -> Patch:
        if self.size != (height, width):
            raise ValueError(f"run lengths for {self.size[1]}x{self.size[0]} in an image of {width}x{height}")
        return Patch(0, 0, rle.decode(self.size, self.counts))


@dataclass(frozen=True)
class Bitmap:
    """A mask `(h, w)`, bool, at row `top` and column `left`, which may reach out of the image.

    `decode` returns it, so that only masks that are being drawn take memory; it raises ValueError for a damaged one.
    """

    top: int
    left: int
    decode: Callable[[], np.ndarray]

    def draw(self, height: int, width: int) -> Patch:
        top, left = max(-self.top, 0), max(-self.left, 0)
        inside = self.decode()[top : max(height - self.top, 0), left : max(width - self.left, 0)]
        return Patch(self.top + top, self.left + left, inside)


def window(canvas: np.ndarray, top: int, left: int, mask: np.ndarray) -> np.ndarray:
    """Return the view of `canvas` that `mask` covers at `top` and `left`."""
    return canvas[top : top + mask.shape[0], left : left + mask.shape[1]]


def fill(ring: np.ndarray, height: int, width: int) -> Patch:
    """Return the pixels of an image whose centres lie in the polygon `ring`, by the even-odd rule."""
    limits = np.array([width, height])
    left, top = np.floor(ring.min(0)).clip(0, limits).astype(int).tolist()
    right, bottom = np.ceil(ring.max(0)).clip(0, limits).astype(int).tolist()
    (x, y), (next_x, next_y) = ring.T, np.roll(ring, -1, axis=0).T
    first = np.ceil(np.minimum(y, next_y) - 0.5).clip(top, bottom).astype(int)
    last = np.ceil(np.maximum(y, next_y) - 0.5).clip(top, bottom).astype(int)
    counts = last - first  # rows whose centres an edge crosses
    edge = np.repeat(np.arange(len(ring)), counts)
    row = np.arange(counts.sum()) - np.repeat(counts.cumsum() - counts, counts) + first[edge]
    with np.errstate(divide="ignore", invalid="ignore"):  # level edges, which cross no row
        slope = (next_x - x) / (next_y - y)
    crossing = x[edge] + (row + 0.5 - y[edge]) * slope[edge]
    column = np.ceil(crossing - 0.5).clip(left, right).astype(int)  # the first pixel on the right of the edge
    toggles = np.zeros((bottom - top, right - left + 1), bool)
    np.logical_xor.at(toggles, (row - top, column - left), True)
    return Patch(top, left, np.logical_xor.accumulate(toggles, axis=1)[:, :-1])


def corners(values: Any) -> np.ndarray:
    """Return x and y of the corners `(n, 2)`, from pairs or a flat list; raises ValueError for anything else."""
    try:
        flat = np.asarray(values, np.float64).ravel()
    except (ValueError, TypeError) as error:
        raise ValueError("a polygon whose corners are no pairs of numbers") from error
    if flat.size == 0 or flat.size % 2:
        raise ValueError(f"a polygon of {flat.size} numbers, not of pairs")
    far = flat[~(np.abs(flat) < _FARTHEST)]  # also those that are no number
    if far.size:
        raise ValueError(f"the coordinate {far[0]} is no position in an image")
    return flat.reshape(-1, 2)


def rectangle(left: float, top: float, right: float, bottom: float) -> np.ndarray:
    """Return the corners of a rectangle."""
    return corners([left, top, right, top, right, bottom, left, bottom])


def ellipse(x: float, y: float, radius_x: float, radius_y: float) -> np.ndarray:
    """Return a polygon that stays within a thousandth of a pixel of an ellipse with radii up to 100 pixels."""
    angles = np.arange(_ELLIPSE_POINTS) * (2 * np.pi / _ELLIPSE_POINTS)
    return corners(np.stack([x + radius_x * np.cos(angles), y + radius_y * np.sin(angles)], axis=1))


def rotate(ring: np.ndarray, degrees: float, center: tuple[float, float]) -> np.ndarray:
    """Return the polygon turned clockwise, as seen in the image, about `center`."""
    angle = np.deg2rad(degrees)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    return corners((ring - center) @ turn + center)


def runs_to_mask(runs: Sequence[int], height: int, width: int) -> np.ndarray:
    """Return the mask `(H, W)`, bool, of row-major run lengths that start with a run of zeros."""
    return rle.decode((width, height), runs).T
