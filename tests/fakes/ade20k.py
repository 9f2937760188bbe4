"""A tiny ADE20K in the official layout."""

from __future__ import annotations

from pathlib import Path

from tests.fakes.pictures import write_pair


def write_ade20k(root: Path, train: int = 4, val: int = 2) -> Path:
    """Write splits of images with ids 0 to 150; return `root`."""
    for folder, split, count in (("training", "train", train), ("validation", "val", val)):
        for i in range(count):
            name = f"ADE_{split}_{i + 1:08d}"
            image, mask = root / "images" / folder / f"{name}.jpg", root / "annotations" / folder / f"{name}.png"
            write_pair(image, mask, range(151), i)
    return root
