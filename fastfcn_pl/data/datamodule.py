"""Base classes of the data sets' LightningDataModules."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import lightning as L
import torch
from lightning.fabric.utilities.seed import pl_worker_init_function
from lightning.pytorch.utilities import rank_zero_warn
from torch.utils.data import DataLoader, Dataset, Sampler

from fastfcn_pl.core.types import DatasetSpec, UserError, suggest
from fastfcn_pl.data.cache import CachedSource
from fastfcn_pl.data.class_check import check_masks, require_two_classes
from fastfcn_pl.data.dataset import Sample, SegmentationDataset, Source, Transform
from fastfcn_pl.data.io.image_files import FileSource
from fastfcn_pl.data.io.pairs import EXTENSIONS, missing_files
from fastfcn_pl.data.io.walk import walk
from fastfcn_pl.data.loader_options import AUTOMATIC, Loading
from fastfcn_pl.data.samplers import UNIFORM, EvalSampler, Sampling, TrainSampler
from fastfcn_pl.data.shared_memory import exit_on_lost_batch, worker_count
from fastfcn_pl.data.workers import init_worker


class SegmentationDataModule(L.LightningDataModule):
    """Data loaders of a data set's splits; a subclass sets `spec` and returns the `source` of each split.

    Training samples are augmented, shuffled and batched, with `batch_size` for each device. Evaluation reads one
    image at a time at its own size, and every image exactly once over all devices. `num_workers=null` divides the
    machine's cores among its devices.
    """

    spec: DatasetSpec
    train_split = "train"
    class_weights: Sequence[float] | None = None
    """Weights of the classes in the loss that suit the data set, for `class_weights=data`."""
    split_sizes: ClassVar[dict[str, int]] = {}
    """Labelled splits with their official numbers of images; empty if the data set has no official splits."""
    unlabelled: ClassVar[dict[str, str]] = {}
    """Splits without public labels, with the place of their images, for prediction."""

    def __init__(
        self,
        seed: int,
        *,
        batch_size: int,
        num_workers: int | None,
        augmentation: Transform,
        loader: Loading = AUTOMATIC,  # missing in checkpoints written before this option existed
        sampler: Sampling = UNIFORM,  # likewise
    ) -> None:
        super().__init__()
        if batch_size < 1:
            raise UserError(f"data.batch_size={batch_size}: give 1 or more")
        if num_workers is not None and num_workers < 0:
            raise UserError(f"data.num_workers={num_workers}: give 0 for none, or null for one for each core")
        self.seed, self.batch_size, self.num_workers, self.augmentation = seed, batch_size, num_workers, augmentation
        self.loader, self.sampler = loader, sampler
        self.absent_classes: dict[str, set[str]] = {}  # of `train` and `val`, if all masks were read
        self.start = 0, 0  # epoch to start in, and number of its batches that are already done

    def source(self, split: str) -> Source:
        """Return the images and labels of a split, such as `val`; raises UserError if it is missing."""
        raise NotImplementedError

    @property
    def split_names(self) -> list[str]:
        """Names of all splits, present or not, without the combined `trainval`."""
        return [*(self.split_sizes or ("train", "val")), *self.unlabelled]

    def listing(self, split: str) -> Source:
        """Return a split without checking that its files exist, to report everything that is wrong.

        If a split has no public labels, the image takes the place of the label map.
        """
        return self.source(split)

    def dataset(self, split: str, augment: bool = False) -> SegmentationDataset:
        """Return the samples of a split; raises UserError if it is empty."""
        source = self.source(split)
        if len(source) == 0:
            raise UserError(f"split {split} of {self.spec.name} is empty: check data.root and the split's list")
        if self.loader.cache is not None and isinstance(source, FileSource):
            source = CachedSource(source, Path(self.loader.cache))
        return SegmentationDataset(source, self.spec, self.augmentation if augment else None, self.seed)

    def train_dataloader(self) -> DataLoader[Sample]:
        dataset = self.dataset(self.train_split, augment=True)
        epoch, done = self.start[0], self.start[1] * self.batch_size
        sampler = TrainSampler(len(dataset), self.seed, *self._rank(), epoch, done, self.sampler.order)
        if len(sampler) < self.batch_size:
            raise UserError(
                f"{self.spec.name} has {len(sampler)} training images for each device, fewer than "
                f"data.batch_size={self.batch_size}: lower the batch size"
            )
        self.sampler.prepare(dataset, *self._rank())
        return self._loader(dataset, sampler, self.batch_size, drop_last=True)

    def val_dataloader(self) -> DataLoader[Sample]:
        return self.eval_dataloader("val")

    def test_dataloader(self) -> DataLoader[Sample]:
        return self.eval_dataloader("test")

    def eval_dataloader(self, split: str) -> DataLoader[Sample]:
        """Return this rank's share of a split, one image at a time."""
        sampler = EvalSampler(len(dataset := self.dataset(split)), *self._rank())
        return self._loader(dataset, sampler, 1, drop_last=False)

    def _loader(self, dataset: Dataset[Sample], sampler: Sampler, size: int, drop_last: bool) -> DataLoader[Sample]:
        options, devices = self.loader, self.trainer.num_devices if self.trainer else 1
        workers = worker_count(self.num_workers, devices, dataset, size, options.prefetch or 2, rank_zero_warn)
        on_gpu = self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"
        return DataLoader(
            dataset,
            size,
            sampler=sampler,
            num_workers=workers,
            drop_last=drop_last,
            pin_memory=on_gpu if options.pin_memory is None else options.pin_memory,
            persistent_workers=workers > 0 and options.persistent_workers is not False,
            prefetch_factor=options.prefetch if workers else None,
            worker_init_fn=_init_loader_worker,
            generator=torch.Generator(),  # the global one also drives dropout
        )

    def _rank(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)


def _init_loader_worker(worker_id: int) -> None:
    init_worker()
    exit_on_lost_batch()
    pl_worker_init_function(worker_id)  # seeds the global generators, which user transforms may draw from


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

    def pairs(self, split: str) -> list[tuple[Path, Path]]:
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
                absent = check_masks(split, source, self.spec, rank_zero_warn)
                self.absent_classes["train" if split == self.train_split else split] = set(absent)
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

    def reader(self, pairs: list[tuple[Path, Path]]) -> FileSource:
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

    def files(self, split: str) -> list[tuple[Path, Path]]:
        """Return the pairs of a split; raises UserError if it has no labels or a file is missing."""
        if split == "trainval":
            return self.files("train") + self.files("val")
        if split in self.unlabelled:
            raise UserError(
                f"split {split} of {self.spec.name} has no public labels: use {' or '.join(self.split_sizes)}, or "
                f"predict its images ({self.unlabelled[split]})"
            )
        pairs = self._listed(split)
        if missing := missing_files([str(path) for pair in pairs for path in pair]):
            raise UserError(
                f"split {split} of {self.spec.name} lacks {len(missing)} files, such as {missing[0]}: "
                "restore them, or remove their images"
            )
        return pairs

    def _listed(self, split: str) -> list[tuple[Path, Path]]:
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
