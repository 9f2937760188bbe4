"""Conversion of SBD (Hariharan et al. 2011) to masks for PASCAL VOC 2012, with the split `trainaug`."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fastfcn_pl.tools.prepare.matlab import read_map
from fastfcn_pl.tools.prepare.write_masks import read_list, write_all, write_list


def trainaug(root: Path, num_workers: int | None, *, labels: str) -> None:
    """Write masks of the SBD images that are not in VOC's train or val, and `trainaug.txt` with these and train.

    `labels` is the folder with `cls/<name>.mat`, `train.txt` and `val.txt`.
    """
    lists = root / "ImageSets" / "Segmentation"
    train, val = (read_list(lists / f"{split}.txt") for split in ("train", "val"))
    sbd_names = {name for split in ("train", "val") for name in read_list(root / labels / f"{split}.txt")}
    added = sorted(sbd_names.difference(train, val))
    tasks = [(root / labels / "cls" / f"{name}.mat", root / "SegmentationClassAug" / f"{name}.png") for name in added]
    write_all(_read, tasks, num_workers)
    write_list([*train, *added], lists / "trainaug.txt")


def _read(path: Path) -> np.ndarray:
    return read_map(path, "GTcls", "Segmentation")
