"""A tiny Cityscapes in the official layout."""

from __future__ import annotations

from pathlib import Path

from tests.fakes.pictures import write_pair

IDS = {"labelIds": [*range(34)], "labelTrainIds": [*range(19), 255]}


def write_cityscapes(root: Path, train: int = 4, val: int = 2, labels: str = "labelIds") -> Path:
    """Write splits of images in several cities, with one kind of masks, all ids in each; return `root`."""
    for split, cities, count in (("train", ["aachen", "ulm"], train), ("val", ["munster"], val)):
        for i in range(count):
            city = cities[i % len(cities)]
            frame = f"{city}_{i:06d}_000019"
            image = root / "leftImg8bit" / split / city / f"{frame}_leftImg8bit.png"
            write_pair(image, root / "gtFine" / split / city / f"{frame}_gtFine_{labels}.png", IDS[labels], i)
    return root
