"""A tiny PASCAL Context in the layout of mmsegmentation."""

from __future__ import annotations

from pathlib import Path

from tests.fakes.pictures import write_pair


def write_pascal_context(root: Path, train: int = 4, val: int = 2) -> Path:
    """Write splits of images with ids 0 to 59; return `root`."""
    lists = root / "ImageSets" / "SegmentationContext"
    lists.mkdir(parents=True)
    for split, year, count in (("train", 2008, train), ("val", 2010, val)):
        names = [f"{year}_{i + 1:06d}" for i in range(count)]
        for i, name in enumerate(names):
            image, mask = root / "JPEGImages" / f"{name}.jpg", root / "SegmentationClassContext" / f"{name}.png"
            write_pair(image, mask, range(60), i)
        (lists / f"{split}.txt").write_text("\n".join(names) + "\n")
    return root
