"""A tiny PASCAL VOC 2012 with the masks of SBD, in the official layout: masks have a palette."""

from __future__ import annotations

from pathlib import Path

from tests.fakes.pictures import write_pair

IDS = [*range(21), 255]
PALETTE = [c for i in range(256) for c in (i, 255 - i, 128)]


def write_pascal_voc(root: Path, train: int = 4, val: int = 2, added: int = 3) -> Path:
    """Write splits of images with ids 0 to 20 and 255; `trainaug` is `train` and the `added` ones; return `root`."""
    lists = root / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    names = {}
    for split, year, count in (("train", 2007, train), ("val", 2009, val), ("added", 2011, added)):
        names[split] = [f"{year}_{i + 1:06d}" for i in range(count)]
        for i, name in enumerate(names[split]):
            masks = "SegmentationClassAug" if split == "added" else "SegmentationClass"
            write_pair(root / "JPEGImages" / f"{name}.jpg", root / masks / f"{name}.png", IDS, i, PALETTE)
    for split, parts in (("train", ["train"]), ("val", ["val"]), ("trainaug", ["train", "added"])):
        (lists / f"{split}.txt").write_text("".join(f"{name}\n" for part in parts for name in names[part]))
    return root
