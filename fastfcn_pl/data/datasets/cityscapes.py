"""Cityscapes with fine annotations: 2,975 / 500 / 1,525 frames of 1024x2048, 19 classes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from fastfcn_pl.core.types import IGNORE, DatasetSpec, UserError, suggest
from fastfcn_pl.data.dataset import Transform
from fastfcn_pl.data.file_datamodule import FileDataModule
from fastfcn_pl.data.io.pairs import glob_visible
from fastfcn_pl.data.loader_options import AUTOMATIC, Loading
from fastfcn_pl.data.samplers import UNIFORM, Sampling

# Ids and colours of the evaluated classes in the order of their train ids, from `labels.py` of cityscapesScripts.
TABLE = {
    "road": (7, (128, 64, 128)),
    "sidewalk": (8, (244, 35, 232)),
    "building": (11, (70, 70, 70)),
    "wall": (12, (102, 102, 156)),
    "fence": (13, (190, 153, 153)),
    "pole": (17, (153, 153, 153)),
    "traffic light": (19, (250, 170, 30)),
    "traffic sign": (20, (220, 220, 0)),
    "vegetation": (21, (107, 142, 35)),
    "terrain": (22, (152, 251, 152)),
    "sky": (23, (70, 130, 180)),
    "person": (24, (220, 20, 60)),
    "rider": (25, (255, 0, 0)),
    "car": (26, (0, 0, 142)),
    "truck": (27, (0, 0, 70)),
    "bus": (28, (0, 60, 100)),
    "train": (31, (0, 80, 100)),
    "motorcycle": (32, (0, 0, 230)),
    "bicycle": (33, (119, 11, 32)),
}
REMAPS: dict[str, dict[int, int]] = {
    "labelIds": {**dict.fromkeys(range(34), IGNORE), **{number: i for i, (number, _) in enumerate(TABLE.values())}},
    "labelTrainIds": {},
}


class Cityscapes(FileDataModule):
    """Cordts et al. 2016, with the masks `*_gtFine_<labels>.png`.

    `labels` is `labelIds` for the official files, in which 19 of the ids 0 to 33 are classes, or `labelTrainIds` for
    the output of csCreateTrainIdLabelImgs. `root` contains `{leftImg8bit,gtFine}/{train,val}/<city>`.
    """

    spec = DatasetSpec("cityscapes", tuple(TABLE), tuple(colour for _, colour in TABLE.values()))
    split_sizes: ClassVar = {"train": 2975, "val": 500}
    unlabelled: ClassVar = {"test": "leftImg8bit/test"}
    how_to_get = (
        "register at https://www.cityscapes-dataset.com, download leftImg8bit_trainvaltest.zip "
        "and gtFine_trainvaltest.zip to <dir>/archives, and run "
        "python -m fastfcn_pl.prepare data=cityscapes data.root=<dir>"
    )

    def __init__(
        self,
        seed: int,
        *,
        root: str,
        labels: str,
        train_split: str,
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
        if labels not in REMAPS:
            raise UserError(f"data.labels={labels}: no such masks; {suggest(labels, REMAPS)}")
        self.labels, self.spec = labels, replace(self.spec, remap=REMAPS[labels])

    def pairs(self, split: str) -> list[tuple[Path, Path]]:
        images, masks = (self.require(kind, split) for kind in ("leftImg8bit", "gtFine"))
        return [
            (image, masks / image.parent.name / image.name.replace("leftImg8bit", f"gtFine_{self.labels}"))
            for image in glob_visible(images, "*/*_leftImg8bit.png")
        ]
