"""Fast operations on images, of 8 bits or with bands of float32, and on masks: resize, blur, flip, pad, look up."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

import cv2
import numpy as np
import torch

from fastfcn_pl.core.types import Box

cv2.setNumThreads(0)  # the loader's workers already use all cores

_MIN_SIGMA = 0.25
"""A Gaussian this wide, in pixels, changes no value by half a grey level: 255 * 4 exp(-1 / (2 * 0.25^2)) < 0.5."""
_TOLERANCE = 1 / 512
"""Accepted shift of a resized image in pixels; at an edge from black to white it is half a grey level."""


def resize_region(image: np.ndarray, size: tuple[int, int], box: Box) -> np.ndarray:
    """Resize `image` `(H, W, C)` to `size` (width, height), bilinear with antialiasing, and crop it to `box`.

    Only pixels in `box` are computed. They differ from Pillow's resize of the whole image by at most 2 grey levels.
    """
    left, top, right, bottom = box
    columns, source_columns = _aligned_ranges(left, right, size[0], image.shape[1])
    rows, source_rows = _aligned_ranges(top, bottom, size[1], image.shape[0])
    source, scales = image[source_rows, source_columns], (size[0] / image.shape[1], size[1] / image.shape[0])
    # Both functions start on whole pixels. OpenCV's is faster but does not antialias, which enlarging does not need.
    if min(scales) >= 1:
        pixels = cv2.resize(source, None, fx=scales[0], fy=scales[1], interpolation=cv2.INTER_LINEAR)
    else:
        pixels = _resize_antialiased(source, (len(rows), len(columns)), scales)
    pixels = pixels.reshape(*pixels.shape[:2], image.shape[2])  # OpenCV drops an axis of length 1
    return pixels[top - rows.start : bottom - rows.start, left - columns.start : right - columns.start]


def _resize_antialiased(image: np.ndarray, shape: tuple[int, int], scales: tuple[float, float]) -> np.ndarray:
    """Resize `image` by `scales` (x, y) to `shape` (H, W) with antialiasing, by torch, which is faster than Pillow."""
    source = torch.from_numpy(np.require(image, requirements="W")).permute(2, 0, 1)[None]
    resized = torch.empty((1, source.shape[1], *shape), dtype=source.dtype, memory_format=torch.channels_last)
    torch.ops.aten._upsample_bilinear2d_aa.out(source, shape, False, scales[1], scales[0], out=resized)
    return resized[0].permute(1, 2, 0).numpy()


def _aligned_ranges(first: int, end: int, size: int, length: int) -> tuple[range, slice]:
    """Return the output pixels to compute and the source pixels to read for a resize from `length` to `size`.

    The output range contains `first` to `end`. It starts at the last pixel whose border coincides with one of the
    source and that still leaves the whole filter support of `first` inside.
    """
    step = length / size
    support = max(step, 1)
    borders = np.arange(first + 1) * step
    aligned = np.abs(borders - np.rint(borders)) <= _TOLERANCE
    aligned[1:] &= borders[1:] <= (first + 0.5) * step - support
    start = int(np.flatnonzero(aligned)[-1])
    source = slice(round(borders[start]), min(ceil((end - 0.5) * step + support), length))
    if source.stop - source.start == end - start and end < size:
        end += 1  # both functions do nothing if lengths are equal, whatever the scale
    return range(start, end), source


def gaussian_blur(image: np.ndarray, sigma: float) -> np.ndarray:
    """Blur an image `(H, W, C)` with a Gaussian of `sigma` pixels, replicating its border.

    Channels are blurred one by one, which is faster, and stay contiguous, as a tensor `(C, H, W)` needs them.
    """
    if sigma <= _MIN_SIGMA:
        return image
    kernel = cv2.getGaussianKernel(round(6 * sigma + 1) | 1, sigma, cv2.CV_32F)
    channels = _split_channels(image)
    for channel in channels:
        cv2.sepFilter2D(channel, -1, kernel, kernel, channel, borderType=cv2.BORDER_REPLICATE)
    return np.moveaxis(channels, 0, -1)


def hflip(pixels: np.ndarray) -> np.ndarray:
    """Flip an image `(H, W, C)` or a mask `(H, W)` left to right."""
    return cv2.flip(pixels, 1).reshape(pixels.shape)


def box_blur(channel: np.ndarray, radius: float) -> np.ndarray:
    """Average a channel `(H, W)` over squares of `2 * radius + 1` pixels, replicating its border, as Pillow does."""
    kernel = np.ones(2 * int(radius) + 3)
    kernel[[0, -1]] = radius - int(radius)
    kernel /= 2 * radius + 1
    return cv2.sepFilter2D(channel, -1, kernel, kernel, borderType=cv2.BORDER_REPLICATE)


def pad(pixels: np.ndarray, size: tuple[int, int], fill: Sequence[float]) -> np.ndarray:
    """Pad an image or a mask with the colour `fill` at the right and bottom to `size` (width, height)."""
    right, bottom = size[0] - pixels.shape[1], size[1] - pixels.shape[0]
    if not right and not bottom:
        return pixels
    if len(fill) > 4:  # more than OpenCV takes
        padded = np.empty((size[1], size[0], len(fill)), pixels.dtype)
        padded[:] = fill
        padded[: pixels.shape[0], : pixels.shape[1]] = pixels
        return padded
    padded = cv2.copyMakeBorder(pixels, 0, bottom, 0, right, cv2.BORDER_CONSTANT, value=tuple(fill))
    return padded.reshape(*padded.shape[:2], *pixels.shape[2:])


def select(mask: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Return `mask[rows[:, None], columns]` for ascending `columns`, faster by copying whole rows."""
    first, last = columns[0], columns[-1]
    return cv2.transpose(cv2.transpose(mask[rows, first : last + 1])[columns - first])


def apply_lut(pixels: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Return `table[pixels]` for a uint8 table `(256,)`, or `(256, 3)` with a column for each channel."""
    return cv2.LUT(pixels, table[None])


def rgb_to_hsv(image: np.ndarray) -> np.ndarray:
    """Convert RGB `(H, W, 3)` to hue (0 to 179), saturation and value."""
    return cv2.cvtColor(image, cv2.COLOR_RGB2HSV)


def hsv_to_rgb(image: np.ndarray) -> np.ndarray:
    """Convert hue, saturation and value back to RGB."""
    return cv2.cvtColor(image, cv2.COLOR_HSV2RGB)


def histogram(mask: np.ndarray) -> np.ndarray:
    """Return the pixel counts `(256,)` of the values 0 to 255."""
    return cv2.calcHist([mask], [0], None, [256], [0, 256]).ravel()


def _split_channels(image: np.ndarray) -> np.ndarray:
    channels = np.empty((image.shape[2], *image.shape[:2]), image.dtype)
    cv2.split(image, list(channels))
    return channels
