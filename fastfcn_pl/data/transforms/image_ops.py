"""Fast operations on arrays of 8 bits: how images are decoded, resampled, blurred, mirrored and laid out."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

import cv2
import numpy as np
import torch

cv2.setNumThreads(0)  # the loader's workers share the cores already

Box = tuple[int, int, int, int]
"""Left, top, right and bottom of a region, in pixels."""

_NO_BLUR = 0.25
"""A Gaussian this wide, in pixels, changes no value by half a grey level: 255 * 4 exp(-1 / (2 * 0.25^2)) < 0.5."""
_TOLERANCE = 1 / 512
"""How far, in pixels, a resampled image may be shifted: half a grey level between black and white."""


def decoded(content: np.ndarray) -> np.ndarray | None:
    """Return the RGB image `(H, W, 3)` in the bytes of a file, as it is stored; None where it is not whole."""
    return cv2.imdecode(content, cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)


def resized_region(image: np.ndarray, size: tuple[int, int], box: Box) -> np.ndarray:
    """Resize `image` `(H, W, 3)` to `size` (width, height), bilinear and antialiased, and return its region `box`.

    Only that region is computed; Pillow's own resize of the whole image differs by 2 grey levels at most.
    """
    left, top, right, bottom = box
    columns, source_columns = _aligned(left, right, size[0], image.shape[1])
    rows, source_rows = _aligned(top, bottom, size[1], image.shape[0])
    source, scales = image[source_rows, source_columns], (size[0] / image.shape[1], size[1] / image.shape[0])
    # Both kernels start on whole pixels only. OpenCV's is 1.3 times as fast, and does not antialias.
    if min(scales) >= 1:
        pixels = cv2.resize(source, None, fx=scales[0], fy=scales[1], interpolation=cv2.INTER_LINEAR)
    else:
        pixels = _averaged(source, (len(rows), len(columns)), scales)
    return pixels[top - rows.start : bottom - rows.start, left - columns.start : right - columns.start]


def _averaged(image: np.ndarray, shape: tuple[int, int], scales: tuple[float, float]) -> np.ndarray:
    """Resize `image` by `scales` (x, y) to `shape` (H, W), antialiased: 3 times as fast as Pillow, in channels_last."""
    source = torch.from_numpy(np.require(image, requirements="W")).permute(2, 0, 1)[None]
    resized = torch.empty((1, 3, *shape), dtype=torch.uint8, memory_format=torch.channels_last)
    torch.ops.aten._upsample_bilinear2d_aa.out(source, shape, False, scales[1], scales[0], out=resized)
    return resized[0].permute(1, 2, 0).numpy()


def _aligned(first: int, end: int, size: int, length: int) -> tuple[range, slice]:
    """Return which pixels of a resize from `length` to `size` to compute, and from which of the source.

    They hold those from `first` to `end`. They start with the last one whose border is a source pixel's, and behind
    which lies all that `first` is interpolated from.
    """
    step = length / size
    support = max(step, 1)
    borders = np.arange(first + 1) * step
    aligned = np.abs(borders - np.rint(borders)) <= _TOLERANCE
    aligned[1:] &= borders[1:] <= (first + 0.5) * step - support
    start = int(np.flatnonzero(aligned)[-1])
    source = slice(round(borders[start]), min(ceil((end - 0.5) * step + support), length))
    if source.stop - source.start == end - start and end < size:
        end += 1  # both take equal lengths for nothing to do, whatever the step
    return range(start, end), source


def blurred(image: np.ndarray, sigma: float) -> np.ndarray:
    """Return the image `(H, W, 3)` under a Gaussian of `sigma` pixels; its border is continued outwards.

    A channel after the other is blurred, in place, which is what is fast: `planes` then has nothing to do.
    """
    if sigma <= _NO_BLUR:
        return image
    kernel = cv2.getGaussianKernel(round(6 * sigma + 1) | 1, sigma, cv2.CV_32F)
    channels = _split(image)
    for channel in channels:
        cv2.sepFilter2D(channel, -1, kernel, kernel, channel, borderType=cv2.BORDER_REPLICATE)
    return np.moveaxis(channels, 0, -1)


def mirrored(pixels: np.ndarray) -> np.ndarray:
    """Return an image `(H, W, 3)` or a mask `(H, W)` with left and right exchanged."""
    return cv2.flip(pixels, 1)


def padded(pixels: np.ndarray, size: tuple[int, int], fill: Sequence[int]) -> np.ndarray:
    """Return image or mask with the colour `fill` at its right and bottom, up to `size` (width, height)."""
    right, bottom = size[0] - pixels.shape[1], size[1] - pixels.shape[0]
    if not right and not bottom:
        return pixels
    return cv2.copyMakeBorder(pixels, 0, bottom, 0, right, cv2.BORDER_CONSTANT, value=tuple(fill))


def taken(mask: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Return `mask[rows[:, None], columns]`, for ascending `columns`, several times faster: by copies of whole rows."""
    first, last = columns[0], columns[-1]
    return cv2.transpose(cv2.transpose(mask[rows, first : last + 1])[columns - first])


def mapped(pixels: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Return `table[pixels]` for a table `(256,)` of 8 bits, or `(256, 3)`, a column a channel."""
    return cv2.LUT(pixels, table[None])


def hsv(image: np.ndarray) -> np.ndarray:
    """Return an RGB image `(H, W, 3)` as hue (0 to 179), saturation and value."""
    return cv2.cvtColor(image, cv2.COLOR_RGB2HSV)


def rgb(image: np.ndarray) -> np.ndarray:
    """Undo `hsv`."""
    return cv2.cvtColor(image, cv2.COLOR_HSV2RGB)


def counted(mask: np.ndarray) -> np.ndarray:
    """Return how many pixels have each of the 256 values."""
    return cv2.calcHist([mask], [0], None, [256], [0, 256]).ravel()


def planes(image: np.ndarray) -> np.ndarray:
    """Return the image `(H, W, 3)` as `(3, H, W)`; itself, where its channels lie apart in memory."""
    channels = np.moveaxis(image, -1, 0)
    return channels if channels.flags.c_contiguous else _split(image)


def _split(image: np.ndarray) -> np.ndarray:
    channels = np.empty((3, *image.shape[:2]), np.uint8)
    cv2.split(image, list(channels))
    return channels
