"""Torch data set of augmented samples from any source of images and label maps."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, TypedDict

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from fastfcn_pl.core.types import IGNORE, DatasetSpec
from fastfcn_pl.data.io.label_ids import label_table, look_up, unknown_ids
from fastfcn_pl.data.samplers import BLANK
from fastfcn_pl.data.transforms.image_ops import apply_lut

Transform = Callable[[np.ndarray, np.ndarray, np.random.Generator], tuple[np.ndarray, np.ndarray]]
"""Augments an image `(H, W, C)`, of the kind that `Source` returns, and class indices `(H, W)`, uint8, by draws."""


class Sample(TypedDict):
    """An image and its labels, as sent from a worker to the device."""

    image: Tensor
    """`(3, H, W)` uint8, RGB; with bands `(C, H, W)` float32."""
    target: Tensor
    """`(H, W)` uint8: class indices and `IGNORE`."""
    index: int
    """Index in the source, or `BLANK`."""


class Source(Protocol):
    """Source of images and raw label maps, such as files or a generator."""

    def __len__(self) -> int: ...

    def read(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Return an RGB image `(H, W, 3)`, uint8, and its label map `(H, W)` with the original ids, of 8 to 32 bits.

        An image with bands is `(H, W, C)`, float32.
        """

    def name(self, index: int) -> str:
        """Return a name of the pair for messages and pictures."""

    def files(self, index: int) -> tuple[Path, ...]:
        """Return the files of the pair; an empty tuple if it is generated."""


class SegmentationDataset(Dataset[Sample]):
    """Samples of a source: read, checked, relabelled, augmented.

    A key is `(epoch, index)`. Random draws depend on `(seed, epoch, index)` alone, not on the worker or rank.
    """

    def __init__(self, source: Source, spec: DatasetSpec, transform: Transform | None = None, seed: int = 0) -> None:
        self.source, self.spec, self.transform, self.seed = source, spec, transform, seed
        table = label_table(spec)
        # Labels plus 1 in 8 bits: IGNORE becomes 0, and unknown ids the largest value.
        self._table = (np.where(table < 0, spec.num_classes, table) + 1).astype(np.uint8)

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        epoch, index = key
        if index == BLANK:
            blank = torch.full((3, 32, 32), IGNORE, dtype=torch.uint8)
            bands = self.spec.bands
            image = torch.zeros(bands.count, 32, 32) if bands else blank
            return {"image": image, "target": blank[0], "index": index}
        pixels, ids = self.source.read(index)
        labels = self.relabel(ids, index)
        if self.transform is not None:
            pixels, labels = self.transform(pixels, labels, np.random.default_rng((self.seed, epoch, index)))
        return {
            "image": torch.from_numpy(np.ascontiguousarray(np.moveaxis(pixels, -1, 0))),
            "target": torch.from_numpy(np.ascontiguousarray(labels)),
            "index": index,
        }

    def relabel(self, ids: np.ndarray, index: int) -> np.ndarray:
        """Map ids of a file to class indices; raises UserError for an unknown id."""
        if ids.dtype == np.uint16:
            labels = self._wide_table[ids]
            self._check_known(ids, labels < 0, index)
            return labels.astype(np.uint8)
        if ids.dtype != np.uint8 or self.spec.num_classes == IGNORE:
            labels = look_up(ids, self.spec.labels)
            self._check_known(ids, labels < 0, index)
            return labels.astype(np.uint8)
        labels = apply_lut(ids, self._table)
        if labels.max() > self.spec.num_classes:  # faster than comparing all pixels
            self._check_known(ids, labels > self.spec.num_classes, index)
        labels -= 1
        return labels

    @functools.cached_property
    def _wide_table(self) -> np.ndarray:
        return label_table(self.spec, 1 << 16)

    def _check_known(self, ids: np.ndarray, unknown: np.ndarray, index: int) -> None:
        """Raise UserError if the mask of `unknown` ids has any."""
        if unknown.any():
            raise unknown_ids(self.source.name(index), np.unique(ids[unknown]).tolist(), self.spec)
