"""Loaders over a data set: what every data set's LightningDataModule shares."""

from __future__ import annotations

import os
from pathlib import Path
from typing import ClassVar

import lightning as L
from torch.utils.data import DataLoader, Dataset

from fastfcn_pl.contracts import DatasetSpec, UserError
from fastfcn_pl.data.dataset import Sample, SegmentationDataset, Source, Transform
from fastfcn_pl.data.files import FileSource
from fastfcn_pl.data.samplers import EvalSampler, TrainSampler


class SegmentationDataModule(L.LightningDataModule):
    """Loaders of a data set's splits. A subclass names `spec` and returns a `source` for each split.

    Training samples are augmented, shuffled and batched, `batch_size` to a device; evaluation reads one image at a
    time at its own size, every one exactly once over all devices. `num_workers=null` takes the cores there are, shared
    among the devices of this machine.
    """

    spec: DatasetSpec

    def __init__(self, seed: int, *, batch_size: int, num_workers: int | None, augmentation: Transform) -> None:
        super().__init__()
        if batch_size < 1:
            raise UserError(f"data.batch_size={batch_size}: a batch holds one image at least")
        if num_workers is not None and num_workers < 0:
            raise UserError(f"data.num_workers={num_workers}: use 0 for none, or null for as many as there are cores")
        self.seed, self.batch_size, self.num_workers, self.augmentation = seed, batch_size, num_workers, augmentation

    def source(self, split: str) -> Source:
        """Return the images and labels of `train`, `val` or `test`; raises UserError where the split is not there."""
        raise NotImplementedError

    def dataset(self, split: str, augment: bool = False) -> SegmentationDataset:
        """Return the samples of a split; raises UserError where it is empty."""
        source = self.source(split)
        if len(source) == 0:
            raise UserError(f"split {split} of {self.spec.name} is empty: check data.root and the split's list")
        return SegmentationDataset(source, self.spec, self.augmentation if augment else None, self.seed)

    def train_dataloader(self) -> DataLoader[Sample]:
        dataset = self.dataset("train", augment=True)
        sampler = TrainSampler(len(dataset), self.seed, *self._rank())
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
        dataset, (rank, world_size) = self.dataset(split), self._rank()
        if len(dataset) < world_size:
            raise UserError(
                f"split {split} of {self.spec.name} has {len(dataset)} images, fewer than there are devices: "
                f"lower trainer.devices to {len(dataset)}"
            )
        return self._loader(dataset, EvalSampler(len(dataset), rank, world_size), batch_size=1, drop_last=False)

    def _loader(
        self, dataset: Dataset[Sample], sampler: TrainSampler | EvalSampler, batch_size: int, drop_last: bool
    ) -> DataLoader[Sample]:
        workers = self._workers()
        return DataLoader(
            dataset,
            batch_size,
            sampler=sampler,
            num_workers=workers,
            drop_last=drop_last,
            pin_memory=self._on_gpu(),
            persistent_workers=workers > 0,
        )

    def _rank(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    def _on_gpu(self) -> bool:
        return self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"

    def _workers(self) -> int:
        if self.num_workers is not None:
            return self.num_workers
        devices = self.trainer.num_devices if self.trainer else 1
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return min(8, cores // devices)


class FileDataModule(SegmentationDataModule):
    """A data set in files below `root`. A subclass lists the `pairs` of a split and says `how_to_get` the data."""

    how_to_get: ClassVar[str]

    def __init__(
        self, seed: int, *, root: str, batch_size: int, num_workers: int | None, augmentation: Transform
    ) -> None:
        super().__init__(seed, batch_size=batch_size, num_workers=num_workers, augmentation=augmentation)
        self.root = Path(root)

    def pairs(self, split: str) -> list[tuple[Path, Path]]:
        """Return the image file and the label file of each sample of a split; empty where the split is not there."""
        raise NotImplementedError

    def prepare_data(self) -> None:
        self.check_root()

    def check_root(self) -> None:
        """Raise UserError where `root` is not a folder, with the way to get the data."""
        if not os.path.isdir(self.root):  # Path.is_dir raises for a name that is too long
            raise UserError(f"data.root={self.root} is not a folder: {self.how_to_get}")

    def source(self, split: str) -> Source:
        self.check_root()
        return FileSource(self.pairs(split))
