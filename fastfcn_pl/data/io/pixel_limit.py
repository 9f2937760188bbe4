"""Limit on the pixels of an image, not on its bands: a small file may claim so many that it exhausts the memory."""

from __future__ import annotations

import os
from pathlib import Path

from PIL import Image

from fastfcn_pl.core.types import UserError

MAX_PIXELS = "FASTFCN_MAX_PIXELS"
"""Environment variable for the maximum number of pixels of an image; the default is Pillow's limit."""


def half_pixel_limit(max_pixels: int | None) -> int | None:
    """Return half of the limit, which is how Pillow stores it: of `max_pixels`, else of `MAX_PIXELS`, else Pillow's."""
    if max_pixels is None and (limit := os.environ.get(MAX_PIXELS)):
        if not limit.isdecimal() or int(limit) == 0:
            raise UserError(f"{MAX_PIXELS}={limit}: give the largest number of pixels of an image, such as 400000000")
        max_pixels = int(limit)
    return Image.MAX_IMAGE_PIXELS if max_pixels is None else -(-max_pixels // 2)


def is_above_limit(pixels: int, max_pixels: int | None) -> bool:
    """Return whether an image has more `pixels` than allowed."""
    half = half_pixel_limit(max_pixels)
    return half is not None and pixels > 2 * half


def too_large(path: Path, pixels: int, unit: str = "") -> UserError:
    """Return the error for a file of too many pixels; `unit` says of what it states the memory."""
    return UserError(
        f"{path} has {pixels} pixels, too many for a file of unknown origin, and takes {memory(pixels)}{unit}: if you "
        f"trust it, set data.max_pixels (data=folder) or the environment variable {MAX_PIXELS}={pixels}"
    )


def memory(pixels: int) -> str:
    """Return the memory for RGB and a mask: 4 bytes a pixel in Pillow, 3 in an array, 1 for the label.

    A band that is taken needs as much, 4 bytes in the file and 4 as float32; those of float64 need more.
    """
    return f"{8 * pixels / 2**30:.1f} GiB"
