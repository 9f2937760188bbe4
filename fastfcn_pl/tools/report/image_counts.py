"""Pixel counts of each image of a scored split, as a run keeps them."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fastfcn_pl.core.types import UserError

_HEADER_BYTES = 4096


class ImageCounts(NamedTuple):
    """Counts of N images of a split with C classes."""

    positions: np.ndarray
    """`(N,)`: place of each image in the split."""
    counts: np.ndarray
    """`(N, 3, C)`: correct, labelled and predicted pixels of each class."""


def read_counts(path: Path, images: int, classes: int) -> ImageCounts | None:
    """Read `images.npz` of a run with this many images and classes; None if there is no such file.

    Raises UserError for a file that is damaged, or larger than such counts are: a run's folder may come from anybody.
    """
    if not path.is_file():
        return None
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(item.file_size for item in archive.infolist()) > 8 * images * (3 * classes + 1) + _HEADER_BYTES:
                raise ValueError("it is too large")
        with np.load(path, allow_pickle=False) as content:
            positions, counts = content["position"], content["counts"]
    except Exception as error:  # zip files and arrays fail in any way
        raise _damaged(path, " ".join(str(error).split())[:80] or type(error).__name__) from error
    if positions.shape != (images,) or counts.shape != (images, 3, classes):
        raise _damaged(path, f"it has the counts of {len(positions)} images in the form {counts.shape}")
    if not (
        np.issubdtype(counts.dtype, np.integer) and (counts >= 0).all() and (counts[:, 0] <= counts[:, 1:].min(1)).all()
    ):
        raise _damaged(path, "its counts contradict each other")
    return ImageCounts(positions, counts)


def _damaged(path: Path, reason: str) -> UserError:
    return UserError(f"{path} does not hold the pixel counts of this run ({reason}): remove it, or score the run again")
