"""Pairs of image and label map, as the fakes write them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

CELL = 6
"""The side of a patch of one id, in pixels: wide enough to be seen in a JPEG."""
JPEG_MODES = ("L", "CMYK")
"""Kinds of the first JPEGs of a split; the others are RGB."""


def write_pair(
    image_path: Path, mask_path: Path, ids: Sequence[int], number: int, palette: Sequence[int] | None = None
) -> None:
    """Write picture `number` of a split: an odd size, all of `ids` in its mask, a higher id brighter in the image.

    Pictures differ by the names of their files, so that no split holds one of another.

    The third JPEG has EXIF data that tell viewers to turn it; label maps lie over the pixels as they are stored.
    """
    height, width = 65 + 8 * number, 97
    rows, columns = np.arange(height)[:, None] // CELL, np.arange(width) // CELL
    shift = int.from_bytes(hashlib.sha256("/".join(image_path.parts[-2:]).encode()).digest()[:4])
    cells = (rows * 17 + columns + shift) % len(ids)
    image = Image.fromarray((cells * ((250 + shift % 6) / len(ids))).astype(np.uint8))
    mask = Image.fromarray(np.sort(ids).astype(np.uint8)[cells])
    if palette is not None:
        mask.putpalette(palette)
    jpeg, exif = image_path.suffix == ".jpg", Image.Exif()
    mode = JPEG_MODES[number] if jpeg and number < len(JPEG_MODES) else "RGB"
    if jpeg and number == 2:
        exif[0x0112] = 6  # a quarter turn
    for path in (image_path, mask_path):
        path.parent.mkdir(parents=True, exist_ok=True)
    image.convert("RGB").convert(mode).save(image_path, quality=95, exif=exif)
    mask.save(mask_path)
