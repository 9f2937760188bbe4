"""Base classes of the data sets' LightningDataModules."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import lightning as L
import torch
from lightning.fabric.utilities.seed import pl_worker_init_function
from lightning.pytorch.utilities import rank_zero_warn
from torch.utils.data import DataLoader, Dataset, Sampler

from fastfcn_pl.core.types import DatasetSpec, UserError
from fastfcn_pl.data.cache import CachedSource
from fastfcn_pl.data.dataset import Sample, SegmentationDataset, Source, Transform
from fastfcn_pl.data.io.image_files import FileSource
from fastfcn_pl.data.loader import Loader
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
        self.absent_classes: dict[str, list[str]] = {}  # of each split whose masks were all read
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
        # In a loop of the user's own, nothing ends workers that outlive an epoch.
        in_run, persistent = self.trainer is not None, options.persistent_workers
        on_gpu = self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"
        return Loader(
            dataset,
            size,
            sampler=sampler,
            num_workers=workers,
            drop_last=drop_last,
            pin_memory=on_gpu if options.pin_memory is None else options.pin_memory,
            persistent_workers=workers > 0 and (in_run if persistent is None else persistent),
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
