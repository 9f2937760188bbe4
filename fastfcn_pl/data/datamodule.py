"""Loaders over a data set: what every data set's LightningDataModule shares."""

from __future__ import annotations

import os
from pathlib import Path
from typing import ClassVar

import lightning as L
import torch
from lightning.fabric.utilities.seed import pl_worker_init_function
from lightning.pytorch.utilities import rank_zero_warn
from torch.utils.data import DataLoader, Dataset

from fastfcn_pl.core.types import DatasetSpec, UserError, suggest
from fastfcn_pl.data.cache import CachedSource
from fastfcn_pl.data.class_check import check_masks, require_two_classes
from fastfcn_pl.data.dataset import Sample, SegmentationDataset, Source, Transform
from fastfcn_pl.data.io.image_files import FileSource
from fastfcn_pl.data.io.pairs import EXTENSIONS, missing_files
from fastfcn_pl.data.io.walk import walk
from fastfcn_pl.data.loader_options import AUTOMATIC, Loading
from fastfcn_pl.data.samplers import EvalSampler, TrainSampler
from fastfcn_pl.data.shared_memory import end_when_a_batch_is_lost, worker_count
from fastfcn_pl.data.workers import begin_work


class SegmentationDataModule(L.LightningDataModule):
    """Loaders of a data set's splits. A subclass names `spec` and returns a `source` for each split.

    Training samples are augmented, shuffled and batched, `batch_size` to a device; evaluation reads one image at a
    time at its own size, every one exactly once over all devices. `num_workers=null` takes the cores there are, shared
    among the devices of this machine.
    """

    spec: DatasetSpec
    train_split = "train"
    split_sizes: ClassVar[dict[str, int]] = {}
    """The splits that have labels, with their official numbers of images; empty where there are no official ones."""
    unlabelled: ClassVar[dict[str, str]] = {}
    """The splits whose labels are not public, with the place of their images: for prediction."""

    def __init__(
        self,
        seed: int,
        *,
        batch_size: int,
        num_workers: int | None,
        augmentation: Transform,
        loader: Loading = AUTOMATIC,  # what checkpoints from before it say nothing about
    ) -> None:
        super().__init__()
        if batch_size < 1:
            raise UserError(f"data.batch_size={batch_size}: a batch holds one image at least")
        if num_workers is not None and num_workers < 0:
            raise UserError(f"data.num_workers={num_workers}: use 0 for none, or null for as many as there are cores")
        self.seed, self.batch_size, self.num_workers, self.augmentation = seed, batch_size, num_workers, augmentation
        self.loader = loader
        self.start = 0, 0  # the epoch that training starts in, and how many of its batches are done already

    def source(self, split: str) -> Source:
        """Return the images and labels of a split, such as `val`; raises UserError where it is not there."""
        raise NotImplementedError

    @property
    def split_names(self) -> list[str]:
        """The splits that there may be, whether or not they are there; `trainval` is none of its own."""
        return [*(self.split_sizes or ("train", "val")), *self.unlabelled]

    def listing(self, split: str) -> Source:
        """Return what a split lists, whether or not each file is there, for a look at all that is wrong.

        Of a split without public labels, an image stands for its label map, too.
        """
        return self.source(split)

    def dataset(self, split: str, augment: bool = False) -> SegmentationDataset:
        """Return the samples of a split; raises UserError where it is empty."""
        source = self.source(split)
        if len(source) == 0:
            raise UserError(f"split {split} of {self.spec.name} is empty: check data.root and the split's list")
        if self.loader.cache is not None and isinstance(source, FileSource):
            source = CachedSource(source, Path(self.loader.cache))
        return SegmentationDataset(source, self.spec, self.augmentation if augment else None, self.seed)

    def train_dataloader(self) -> DataLoader[Sample]:
        dataset = self.dataset(self.train_split, augment=True)
        epoch, batches = self.start
        sampler = TrainSampler(len(dataset), self.seed, *self._rank(), epoch, batches * self.batch_size)
        if len(sampler) < self.batch_size:
            raise UserError(
                f"{self.spec.name} has {len(sampler)} training images for each device, fewer than "
                f"data.batch_size={self.batch_size}: lower the batch size"
            )
        return self._loader(dataset, sampler, self.batch_size, drop_last=True)

    def val_dataloader(self) -> DataLoader[Sample]:
        return self.eval_dataloader("val")

    def test_dataloader(self) -> DataLoader[Sample]:
        return self.eval_dataloader("test")

    def eval_dataloader(self, split: str) -> DataLoader[Sample]:
        """Return this rank's share of a split, one image at a time."""
        dataset = self.dataset(split)
        return self._loader(dataset, EvalSampler(len(dataset), *self._rank()), batch_size=1, drop_last=False)

    def _loader(
        self, dataset: Dataset[Sample], sampler: TrainSampler | EvalSampler, batch_size: int, drop_last: bool
    ) -> DataLoader[Sample]:
        wanted, devices = self.loader, self.trainer.num_devices if self.trainer else 1
        workers = worker_count(self.num_workers, devices, dataset, batch_size, wanted.prefetch or 2, rank_zero_warn)
        return DataLoader(
            dataset,
            batch_size,
            sampler=sampler,
            num_workers=workers,
            drop_last=drop_last,
            pin_memory=self._on_gpu() if wanted.pin_memory is None else wanted.pin_memory,
            persistent_workers=workers > 0 and wanted.persistent_workers is not False,
            prefetch_factor=wanted.prefetch if workers else None,  # null: torch's own
            worker_init_fn=_start_worker,
            generator=torch.Generator(),  # not the global one, whose numbers the network draws its dropout from
        )

    def _rank(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    def _on_gpu(self) -> bool:
        return self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"


def _start_worker(number: int) -> None:
    begin_work()
    end_when_a_batch_is_lost()
    pl_worker_init_function(
        number
    )  # which Lightning calls where there is no other: own parts may use global generators


class FileDataModule(SegmentationDataModule):
    """A data set in files below `root`, trained on `train_split`.

    A subclass lists the `pairs` of a split and says `how_to_get` the data. Any data set has the split `trainval`, which
    is `train` and `val` together.
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
    ) -> None:
        super().__init__(seed, batch_size=batch_size, num_workers=num_workers, augmentation=augmentation, loader=loader)
        if not root:
            raise UserError("data.root is empty: name the folder of the data set, or . for this one")
        self.root, self.train_split = Path(os.path.expanduser(root)), train_split  # ~ in quotes is left to us
        self._checked = False

    def pairs(self, split: str) -> list[tuple[Path, Path]]:
        """Return the image file and the label file of each sample; raises UserError where the split is not there."""
        raise NotImplementedError

    def prepare_data(self) -> None:
        """Check the files before training, once; raises UserError also where val is trained on without being asked for.

        Some masks are read, too: see `check_masks`.
        """
        if self._checked:
            return
        sources = {split: self.source(split) for split in (self.train_split, "val")}
        images = {split: {source.files(i)[0] for i in range(len(source))} for split, source in sources.items()}
        shared = sorted(images["val"] & images[self.train_split])
        if shared and self.train_split not in ("trainval", "val"):
            raise UserError(
                f"split {self.train_split} of {self.spec.name} holds {len(shared)} images of val, such as {shared[0]}: "
                "take them off its list, or train on both with data.train_split=trainval"
            )
        require_two_classes(self.spec)
        for split, source in sources.items():
            if isinstance(source, FileSource):
                check_masks(split, source, self.spec, rank_zero_warn)
        if shared:
            rank_zero_warn(f"data.train_split={self.train_split} holds val, so that scores on val say little")
        self._checked = True

    def check_root(self) -> None:
        """Raise UserError where `root` is not a folder that can be read, with the way to get the data."""
        if not os.path.isdir(self.root):  # Path.is_dir raises for a name that is too long
            raise UserError(f"data.root={self.root} is not a folder: {self.how_to_get}")
        if not os.access(self.root, os.R_OK | os.X_OK):
            raise UserError(f"data.root={self.root} may not be read: change its permissions, or name another folder")

    def source(self, split: str) -> Source:
        return self.reader(self.files(split))

    def reader(self, pairs: list[tuple[Path, Path]]) -> FileSource:
        """Return what reads `pairs` of image and label map."""
        return FileSource(pairs)

    def listing(self, split: str) -> Source:
        if split in self.unlabelled:
            self.check_root()
            return self.reader([(image, image) for image in self.images(split)])
        return self.reader(self._listed(split))

    def images(self, split: str) -> list[Path]:
        """Return the images of a split without public labels."""
        place = self.place(self.unlabelled[split])
        return sorted(walk(place, EXTENSIONS))

    def files(self, split: str) -> list[tuple[Path, Path]]:
        """Return the pairs of a split; raises UserError where it has no labels, or where a file is missing."""
        if split == "trainval":
            return self.files("train") + self.files("val")
        if split in self.unlabelled:
            raise UserError(
                f"the labels of {self.spec.name}'s split {split} are not public: take {' or '.join(self.split_sizes)}; "
                f"its images, {self.unlabelled[split]}, are for prediction"
            )
        pairs = self._listed(split)
        if missing := missing_files([str(path) for pair in pairs for path in pair]):
            raise UserError(
                f"split {split} of {self.spec.name} lacks {len(missing)} files, such as {missing[0]}: "
                "restore them, or leave their images out"
            )
        return pairs

    def _listed(self, split: str) -> list[tuple[Path, Path]]:
        self.check_root()
        if self.split_sizes and split not in self.split_sizes:
            raise UserError(f"{self.spec.name} has no split {split}; {suggest(split, [*self.split_sizes, 'trainval'])}")
        return self.pairs(split)

    def place(self, *parts: str) -> Path:
        """Return a file or folder below `root`; raises UserError where it is missing, with the way to get the data."""
        path = self.root.joinpath(*parts)
        if not path.exists():
            raise UserError(f"{path} is missing: {self.how_to_get}")
        return path
