"""PASCAL Context: 4,998 / 5,105 images of VOC 2010, 59 classes, or 60 with background."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from fastfcn_pl.core.types import IGNORE, DatasetSpec
from fastfcn_pl.data.dataset import Transform
from fastfcn_pl.data.file_datamodule import FileDataModule
from fastfcn_pl.data.io.name_lists import read_names
from fastfcn_pl.data.io.palette import voc_colors
from fastfcn_pl.data.loader_options import AUTOMATIC, Loading
from fastfcn_pl.data.samplers import UNIFORM, Sampling

# The 59 classes with their ids among the 459 in the authors' `labels.txt`. Masks number them 1 to 59 in this order, as
# do the Detail API, the official FastFCN weights and mmsegmentation; the authors' `59_labels.txt` has another order.
_TABLE = """
2: aeroplane
9: bag
18: bed
19: bedclothes
22: bench
23: bicycle
25: bird
31: boat
33: book
34: bottle
44: building
45: bus
46: cabinet
59: car
65: cat
68: ceiling
72: chair
80: cloth
85: computer
98: cow
104: cup
105: curtain
113: dog
115: door
144: fence
158: floor
159: flower
162: food
187: grass
189: ground
207: horse
220: keyboard
232: light
258: motorbike
259: mountain
260: mouse
284: person
295: plate
296: platform
308: pottedplant
324: road
326: rock
347: sheep
349: shelves
354: sidewalk
355: sign
360: sky
366: snow
368: sofa
397: table
415: track
416: train
420: tree
424: truck
427: tvmonitor
440: wall
445: water
454: window
458: wood
"""
IDS_OF_459 = {name: int(number) for number, name in (line.split(": ") for line in _TABLE.strip().splitlines())}
COLORS = voc_colors(range(60))


class PascalContext(FileDataModule):
    """Mottaghi et al. 2014; ids 1 to 59 are the classes, and 0 is ignored, or with `background` the first of 60.

    `root` is `VOCdevkit/VOC2010` in mmsegmentation's layout: images in `JPEGImages`, masks in
    `SegmentationClassContext`, names in `ImageSets/SegmentationContext/{train,val}.txt`.
    """

    spec = DatasetSpec(
        name="pascal_context",
        classes=tuple(IDS_OF_459),
        palette=COLORS[1:],
        remap={0: IGNORE, **{i + 1: i for i in range(59)}},
    )
    spec_of_60 = DatasetSpec("pascal_context_60", ("background", *IDS_OF_459), COLORS)
    split_sizes: ClassVar = {"train": 4998, "val": 5105}
    how_to_get = (
        "run python -m fastfcn_pl.prepare data=pascal_context data.root=<dir>, or lay it out as "
        "mmsegmentation does, with masks of ids 0 to 59, and pass data.root=<dir>/VOCdevkit/VOC2010"
    )

    def __init__(
        self,
        seed: int,
        *,
        root: str,
        train_split: str,
        background: bool,
        batch_size: int,
        num_workers: int | None,
        augmentation: Transform,
        loader: Loading = AUTOMATIC,
        sampler: Sampling = UNIFORM,
    ) -> None:
        super().__init__(
            seed,
            root=root,
            train_split=train_split,
            batch_size=batch_size,
            num_workers=num_workers,
            augmentation=augmentation,
            loader=loader,
            sampler=sampler,
        )
        if background:
            self.spec = self.spec_of_60

    def pairs(self, split: str) -> list[tuple[Path, Path]]:
        image_names = read_names(self.require("ImageSets", "SegmentationContext", f"{split}.txt"))
        images, masks = self.root / "JPEGImages", self.root / "SegmentationClassContext"
        return [(images / f"{name}.jpg", masks / f"{name}.png") for name in image_names]
