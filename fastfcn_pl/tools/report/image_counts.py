"""Numbers of each image of a scored split, as a run keeps them."""

from __future__ import annotations

import math
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


class ApproximationSums(NamedTuple):
    """Sums over the features of N images, see `evaluation.approximation.image_table`."""

    positions: np.ndarray
    """`(N,)`: place of each image in the split."""
    sums: np.ndarray
    """`(N, 4)`."""


def read_counts(path: Path, images: int, classes: int) -> ImageCounts | None:
    """Read `images.npz` of a run with this many images and classes; None if there is no such file.

    Raises UserError for a file that is damaged, or larger than such counts are: a run's folder may come from anybody.
    """
    what = "the pixel counts"
    if (arrays := _read(path, "counts", (images, 3, classes), what)) is None:
        return None
    counts = arrays[1]
    if not (
        np.issubdtype(counts.dtype, np.integer) and (counts >= 0).all() and (counts[:, 0] <= counts[:, 1:].min(1)).all()
    ):
        raise _damaged(path, what, "its counts contradict each other")
    return ImageCounts(*arrays)


def read_approximation(path: Path, images: int) -> ApproximationSums | None:
    """Read `approximation.npz` of a run as `read_counts` does; None if there is no such file."""
    what = "the approximation"
    if (arrays := _read(path, "sums", (images, 4), what)) is None:
        return None
    sums = arrays[1]
    if not (sums.dtype == np.float64 and np.isfinite(sums).all() and (sums[:, [0, 1, 3]] >= 0).all()):
        raise _damaged(path, what, "its sums are not finite, or negative")
    return ApproximationSums(*arrays)


def _read(path: Path, name: str, shape: tuple[int, ...], what: str) -> tuple[np.ndarray, np.ndarray] | None:
    """Return `position` and the array `name` of this shape, eight bytes a value; None if there is no such file."""
    if not path.is_file():
        return None
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(item.file_size for item in archive.infolist()) > 8 * (math.prod(shape) + shape[0]) + _HEADER_BYTES:
                raise ValueError("it is too large")
        with np.load(path, allow_pickle=False) as content:
            positions, values = content["position"], content[name]
    except Exception as error:  # zip files and arrays fail in any way
        raise _damaged(path, what, " ".join(str(error).split())[:80] or type(error).__name__) from error
    if positions.shape != shape[:1] or values.shape != shape:
        raise _damaged(path, what, f"it has positions of the form {positions.shape} and {name} of {values.shape}")
    return positions, values


def _damaged(path: Path, what: str, reason: str) -> UserError:
    return UserError(f"{path} does not hold {what} of this run ({reason}): remove it, or score the run again")
