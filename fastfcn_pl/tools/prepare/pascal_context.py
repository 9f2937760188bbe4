"""Conversion of PASCAL Context labels, from either distributed form, to PNGs of ids 0 to 59."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from fastfcn_pl.core.types import UserError
from fastfcn_pl.data.io import rle
from fastfcn_pl.tools.prepare.matlab import read_map
from fastfcn_pl.tools.prepare.write_masks import NAME, read_list, write_all, write_list

Segment = tuple[int, str | list[int]]
"""Class id among the 459, and run lengths of its pixels."""
_MAX_SIDE = 10_000
"""Plausible side of an image in pixels; the real ones have at most 500."""


def from_mat(root: Path, num_workers: int | None, *, labels: str) -> None:
    """Convert the authors' label maps `<labels>/<name>.mat`, with the splits train and val of VOC 2010."""
    splits = {split: read_list(root / "ImageSets" / "Main" / f"{split}.txt") for split in ("train", "val")}
    origins = {name: root / labels / f"{name}.mat" for names in splits.values() for name in names}
    write_all(partial(_from_mat, _ids_of_59()), _with_masks(root, origins), num_workers)
    _write_lists(root, splits)


def from_json(root: Path, num_workers: int | None, *, labels: str) -> None:
    """Convert `trainval_merged.json` as `getMask` of the Detail API (zhanghang1989/detail-api) does.

    Segments are drawn in the order of the file, later ones over earlier ones. The `phase` of an image is its split.
    """
    path = root / labels
    try:
        content = json.loads(path.read_bytes())
        images = {image["image_id"]: image for image in content["images"]}
        segments: dict[int, list[Segment]] = {number: [] for number in images}
        for annotation in content["annos_segmentation"]:
            segment = annotation["category_id"], annotation["segmentation"]["counts"]
            segments[annotation["image_id"]].append(segment)
        sizes = {number: (image["height"], image["width"]) for number, image in images.items()}
        names = {number: Path(image["file_name"]).stem for number, image in images.items()}
        phases = {number: image["phase"] for number, image in images.items()}
        invalid = next((name for name in names.values() if not NAME.fullmatch(name)), None)
        if invalid is not None:
            raise ValueError(f"{invalid[:40]!a} is not a valid image name")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OSError) as error:
        raise UserError(
            f"{path} is not the JSON of PASCAL Context for the Detail API ({type(error).__name__}: {error}): "
            "remove it and run again"
        ) from error
    splits = {split: sorted(names[n] for n in images if phases[n] == split) for split in ("train", "val")}
    origins = {names[n]: (names[n], sizes[n], segments[n]) for n in images if phases[n] in splits}
    write_all(partial(_from_segments, _ids_of_59()), _with_masks(root, origins), num_workers)
    _write_lists(root, splits)


def _from_mat(table: np.ndarray, path: Path) -> np.ndarray:
    return _look_up(table, read_map(path, "LabelMap"), str(path))


def _from_segments(table: np.ndarray, image: tuple[str, tuple[int, int], list[Segment]]) -> np.ndarray:
    name, size, segments = image
    try:
        if not all(type(side) is int and 0 < side < _MAX_SIDE for side in size):
            raise ValueError(f"its size is {size}")
        ids = np.zeros(size, np.int64)
        for number, counts in segments:
            ids[rle.decode(size, counts)] = number
    except (ValueError, TypeError, IndexError, OverflowError) as error:
        raise UserError(f"the segments of image {name} are damaged ({error}): download the JSON again") from error
    return _look_up(table, ids, f"image {name}")


def _look_up(table: np.ndarray, ids: np.ndarray, name: str) -> np.ndarray:
    if ids.min() < 0 or ids.max() >= len(table):
        raise UserError(f"{name} has the id {ids.max()}, but PASCAL Context uses 0 to {len(table) - 1}: get it again")
    return table[ids]


def _ids_of_59() -> np.ndarray:
    """Return a table `(460,)` from the authors' ids to 1 to 59 in our order, and 0 for all others."""
    from fastfcn_pl.data.datasets.pascal_context import IDS_OF_459  # imported late to keep worker processes light

    table = np.zeros(460, np.uint8)
    table[list(IDS_OF_459.values())] = np.arange(1, 60)
    return table


def _with_masks(root: Path, origins: dict[str, Any]) -> list[tuple[Any, Path]]:
    return [(origin, root / "SegmentationClassContext" / f"{name}.png") for name, origin in origins.items()]


def _write_lists(root: Path, splits: dict[str, list[str]]) -> None:
    """Write the lists of the splits, after everything else, so that a list marks a complete data set."""
    for split, names in splits.items():
        write_list(names, root / "ImageSets" / "SegmentationContext" / f"{split}.txt")
