"""A tiny COCO-Stuff in the official layout."""

from __future__ import annotations

from pathlib import Path

from tests.fakes.pictures import write_pair

REMOVED = {11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90}
"""Ids of classes that COCO gave up: no mask holds them."""


def write_coco_stuff(root: Path, train: int = 4, val: int = 2) -> Path:
    """Write splits of images with ids 0 to 181 but those of removed classes, and 255; return `root`."""
    ids = sorted({*range(182), 255} - REMOVED)
    for split, count in (("train2017", train), ("val2017", val)):
        for i in range(count):
            name = f"{i * 37 + 9:012d}"
            mask = root / "stuffthingmaps_trainval2017" / split / f"{name}.png"
            write_pair(root / split / f"{name}.jpg", mask, ids, i)
    return root
