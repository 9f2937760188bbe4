"""A data set of images with five bands of 16 bits, as a satellite's: the classes differ in the last two bands only."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

from tests.fakes.folder import write_pairs

BANDS = 5
SIZE = (64, 80)


def scene(seed: int, size: tuple[int, int] = SIZE) -> tuple[np.ndarray, np.ndarray]:
    """Return bands `(H, W, 5)`, uint16, and ids `(H, W)`: ground 0, and water 1, which is dark in bands 3 and 4."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: size[0], : size[1]]
    centre = rng.uniform(0.3, 0.7, 2) * size
    ids = (np.hypot(y - centre[0], x - centre[1]) < 0.3 * min(size)).astype(np.uint8)
    light = np.full((*size, BANDS), [900.0, 1100, 1000, 3000, 2000]) + rng.normal(0, 60, (*size, BANDS))
    light[..., 3:] *= np.where(ids, 0.2, 1)[..., None]
    return light.astype(np.uint16), ids


def write_tiff(path: Path, pixels: np.ndarray) -> None:
    """Write `(H, W, C)` as an uncompressed TIFF with all bands of a pixel together, which Pillow does not write."""
    height, width, bands = pixels.shape
    kind = {"u": 1, "i": 2, "f": 3}[pixels.dtype.kind]
    content, bits = pixels.tobytes(), 8 * pixels.dtype.itemsize
    lists = struct.pack(f"<{bands}H", *[bits] * bands) + struct.pack(f"<{bands}H", *[kind] * bands)
    at_lists = 8 + len(content)
    tags = [
        (256, 4, 1, width),
        (257, 4, 1, height),
        (258, 3, bands, at_lists),  # bits of each band
        (259, 3, 1, 1),  # not compressed
        (262, 3, 1, 1),  # black is 0
        (273, 4, 1, 8),  # start of the content
        (277, 3, 1, bands),
        (278, 4, 1, height),
        (279, 4, 1, len(content)),
        (284, 3, 1, 1),  # the bands of a pixel together
        (339, 3, bands, at_lists + 2 * bands),  # kind of number of each band
    ]
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    directory = struct.pack("<H", len(tags)) + entries + struct.pack("<I", 0)
    header = b"II*\0" + struct.pack("<I", at_lists + len(lists))
    path.write_bytes(header + content + lists + directory)


def write_bands(root: Path, **counts: int) -> Path:
    """Write `counts` scenes a split, `images/<split>/<i>.tif` and `masks/<split>/<i>.png`; return `root`."""

    def write(path: Path, seed: int) -> np.ndarray:
        image, ids = scene(seed)
        write_tiff(path.with_suffix(".tif"), image)
        return ids

    return write_pairs(root, counts, write)
