"""Data modules of data sets that are files: images, and a mask for each of them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from lightning.pytorch.utilities import rank_zero_warn

from fastfcn_pl.core.types import UserError, suggest
from fastfcn_pl.data.class_check import check_masks, require_two_classes
from fastfcn_pl.data.datamodule import SegmentationDataModule
from fastfcn_pl.data.dataset import Source, Transform
from fastfcn_pl.data.io.image_files import FileSource
from fastfcn_pl.data.io.pairs import EXTENSIONS, missing_files
from fastfcn_pl.data.io.walk import walk
from fastfcn_pl.data.loader_options import AUTOMATIC, Loading
from fastfcn_pl.data.samplers import UNIFORM, Sampling


class FileDataModule(SegmentationDataModule):
    """Data set in files below `root`, trained on `train_split`.

    A subclass lists the `pairs` of a split and states in `how_to_get` where the data comes from. Every data set has
    the split `trainval`, which combines `train` and `val`.
    """

    how_to_get: ClassVar[str]

    def __init__(
        self,
        seed: int,
        *,
        root: str,
        train_split: str,
        batch_size: int,
        num_workers: int | None,
        augmentation: Transform,
        loader: Loading = AUTOMATIC,
        sampler: Sampling = UNIFORM,
    ) -> None:
        super().__init__(
            seed,
            batch_size=batch_size,
            num_workers=num_workers,
            augmentation=augmentation,
            loader=loader,
            sampler=sampler,
        )
        if not root:
            raise UserError("data.root is empty: give the folder of the data set, or . for the current one")
        self.root, self._checked = Path(os.path.expanduser(root)), False  # the shell keeps a quoted ~
        self.train_split = train_split

    def pairs(self, split: str) -> Sequence[tuple[Path, ...]]:
        """Return the image and label file of each sample; raises UserError if the split is missing."""
        raise NotImplementedError

    def prepare_data(self) -> None:
        """Check files and some masks once before training; raises UserError if the data is unusable.

        Training on images of `val` is an error, too, unless `train_split` says so.
        """
        if self._checked:
            return
        sources = {split: self.source(split) for split in (self.train_split, "val")}
        images = {split: {source.files(i)[0] for i in range(len(source))} for split, source in sources.items()}
        shared = sorted(images["val"] & images[self.train_split])
        if shared and self.train_split not in ("trainval", "val"):
            raise UserError(
                f"split {self.train_split} of {self.spec.name} holds {len(shared)} images of val, such as {shared[0]}: "
                "remove them from its list, or train on both with data.train_split=trainval"
            )
        require_two_classes(self.spec)
        for split, source in sources.items():
            if isinstance(source, FileSource):
                self.absent_classes[split] = check_masks(split, source, self.spec, rank_zero_warn)
        if shared:
            rank_zero_warn(f"data.train_split={self.train_split} includes val, so scores on val are not meaningful")
        self._checked = True

    def check_root(self) -> None:
        """Raise UserError if `root` is not a readable folder."""
        if not os.path.isdir(self.root):  # Path.is_dir raises for a name that is too long
            raise UserError(f"data.root={self.root} is not a folder: {self.how_to_get}")
        if not os.access(self.root, os.R_OK | os.X_OK):
            raise UserError(f"data.root={self.root} is not readable: change its permissions, or give another folder")

    def source(self, split: str) -> Source:
        return self.reader(self.files(split))

    def reader(self, pairs: Sequence[tuple[Path, ...]]) -> FileSource:
        """Return the source that reads `pairs` of image and label file."""
        return FileSource(pairs)

    def listing(self, split: str) -> Source:
        if split in self.unlabelled:
            self.check_root()
            return self.reader([(image, image) for image in self.images(split)])
        return self.reader(self._listed(split))

    def images(self, split: str) -> list[Path]:
        """Return the images of a split without public labels."""
        return sorted(walk(self.require(self.unlabelled[split]), EXTENSIONS))

    def files(self, split: str) -> list[tuple[Path, ...]]:
        """Return the pairs of a split; raises UserError if it has no labels or a file is missing."""
        if split == "trainval":
            return self.files("train") + self.files("val")
        if split in self.unlabelled:
            raise UserError(
                f"split {split} of {self.spec.name} has no public labels: use {' or '.join(self.split_sizes)}, or "
                f"predict its images ({self.unlabelled[split]})"
            )
        pairs = list(self._listed(split))
        if missing := missing_files([str(path) for pair in pairs for path in pair]):
            raise UserError(
                f"split {split} of {self.spec.name} lacks {len(missing)} files, such as {missing[0]}: "
                "restore them, or remove their images"
            )
        return pairs

    def _listed(self, split: str) -> Sequence[tuple[Path, ...]]:
        self.check_root()
        if self.split_sizes and split not in self.split_sizes:
            raise UserError(f"{self.spec.name} has no split {split}; {suggest(split, [*self.split_sizes, 'trainval'])}")
        return self.pairs(split)

    def require(self, *parts: str) -> Path:
        """Return a file or folder below `root`; raises UserError if it is missing."""
        path = self.root.joinpath(*parts)
        if not path.exists():
            raise UserError(f"{path} is missing: {self.how_to_get}")
        return path
