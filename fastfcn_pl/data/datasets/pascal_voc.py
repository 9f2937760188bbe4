"""PASCAL VOC 2012: 1,464 / 1,449 images, 21 classes; 10,582 with the labels of SBD."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from fastfcn_pl.core.types import DatasetSpec
from fastfcn_pl.data.file_datamodule import FileDataModule
from fastfcn_pl.data.io.name_lists import read_names
from fastfcn_pl.data.io.palette import voc_colors

# In the order of `VOCinit.m` in the development kit.
_TABLE = """
background aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike person pottedplant
sheep sofa train tvmonitor
"""
CLASSES = tuple(_TABLE.split())


class PascalVOC(FileDataModule):
    """Everingham et al. 2012, with the labels of Hariharan et al. 2011 (SBD) in the split `trainaug`; 255 is ignored.

    `root` is `VOCdevkit/VOC2012`. Masks are in `SegmentationClass`, and those of images that only `trainaug` contains
    are in `SegmentationClassAug`.
    """

    spec = DatasetSpec("pascal_voc", CLASSES, voc_colors(range(len(CLASSES))))
    split_sizes: ClassVar = {"train": 1464, "val": 1449, "trainaug": 10582}
    unlabelled: ClassVar = {"test": "listed in ImageSets/Segmentation/test.txt"}
    how_to_get = (
        "run python -m fastfcn_pl.prepare data=pascal_voc data.root=<dir>, or, without trainaug, unpack "
        "http://host.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar and pass "
        "data.root=<dir>/VOCdevkit/VOC2012"
    )

    def pairs(self, split: str) -> list[tuple[Path, Path]]:
        image_names = self._names(split)
        added = set(image_names).difference(self._names("train")) if split == "trainaug" else ()
        return [
            (
                self.root / "JPEGImages" / f"{name}.jpg",
                self.root / ("SegmentationClassAug" if name in added else "SegmentationClass") / f"{name}.png",
            )
            for name in image_names
        ]

    def images(self, split: str) -> list[Path]:
        return [self.root / "JPEGImages" / f"{name}.jpg" for name in self._names(split)]

    def _names(self, split: str) -> list[str]:
        return read_names(self.require("ImageSets", "Segmentation", f"{split}.txt"))
