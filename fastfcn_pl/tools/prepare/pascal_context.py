"""PASCAL Context's labels, from either form that they are distributed in, as PNGs of ids 0 to 59."""

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
"""A class's id among the 459, and the run lengths of its pixels."""
_LARGEST = 10_000
"""Pixels of an image's side, which are at most 500."""


def from_mat(root: Path, num_workers: int | None, *, labels: str) -> None:
    """Convert the authors' label maps, `<labels>/<name>.mat`; the splits are those of VOC 2010, train and val."""
    splits = {split: read_list(root / "ImageSets" / "Main" / f"{split}.txt") for split in ("train", "val")}
    origins = {name: root / labels / f"{name}.mat" for names in splits.values() for name in names}
    write_all(partial(_from_mat, _ids_of_59()), _with_masks(root, origins), num_workers)
    _write_lists(root, splits)


def from_json(root: Path, num_workers: int | None, *, labels: str) -> None:
    """Convert `trainval_merged.json` as `getMask` of the Detail API (zhanghang1989/detail-api) does.

    Segments are drawn in their order in the file, a later one over an earlier one. An image's `phase` is its split.
    """
    path = root / labels
    try:
        content = json.loads(path.read_bytes())
        images = {image["image_id"]: image for image in content["images"]}
        segments: dict[int, list[Segment]] = {number: [] for number in images}
        for it in content["annos_segmentation"]:
            segments[it["image_id"]].append((it["category_id"], it["segmentation"]["counts"]))
        sizes = {number: (image["height"], image["width"]) for number, image in images.items()}
        names = {number: Path(image["file_name"]).stem for number, image in images.items()}
        phases = {number: image["phase"] for number, image in images.items()}
        wrong = next((name for name in names.values() if not NAME.fullmatch(name)), None)
        if wrong is not None:
            raise ValueError(f"{wrong[:40]!a} is no name of an image")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OSError) as error:
        raise UserError(
            f"{path} does not hold PASCAL Context for the Detail API ({type(error).__name__}: {error}): "
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
        if not all(type(side) is int and 0 < side < _LARGEST for side in size):
            raise ValueError(f"its size is {size}")
        ids = np.zeros(size, np.int64)
        for number, counts in segments:
            ids[rle.decode(size, counts)] = number
    except (ValueError, TypeError, IndexError, OverflowError) as error:
        raise UserError(f"the segments of image {name} are damaged ({error}): get the JSON anew") from error
    return _look_up(table, ids, f"image {name}")


def _look_up(table: np.ndarray, ids: np.ndarray, name: str) -> np.ndarray:
    if ids.min() < 0 or ids.max() >= len(table):
        raise UserError(f"{name} holds id {ids.max()}, but PASCAL Context's ids are 0 to {len(table) - 1}: get it anew")
    return table[ids]


def _ids_of_59() -> np.ndarray:
    """Return the table `(460,)` from the authors' ids to 1 to 59, in our order, or 0 for all else."""
    from fastfcn_pl.data.datasets.pascal_context import IDS_OF_459  # here: its imports would slow each process

    table = np.zeros(460, np.uint8)
    table[list(IDS_OF_459.values())] = np.arange(1, 60)
    return table


def _with_masks(root: Path, origins: dict[str, Any]) -> list[tuple[Any, Path]]:
    return [(origin, root / "SegmentationClassContext" / f"{name}.png") for name, origin in origins.items()]


def _write_lists(root: Path, splits: dict[str, list[str]]) -> None:
    """Write the lists last: a data set with a list is whole."""
    for split, names in splits.items():
        write_list(names, root / "ImageSets" / "SegmentationContext" / f"{split}.txt")
