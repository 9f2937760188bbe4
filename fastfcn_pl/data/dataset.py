"""A data set that yields augmented samples, from any source of images and label maps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol, TypedDict

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from fastfcn_pl.core.types import IGNORE, DatasetSpec
from fastfcn_pl.data.io.label_ids import label_shift, label_table, look_up, unknown_ids
from fastfcn_pl.data.samplers import BLANK
from fastfcn_pl.data.transforms.image_ops import apply_lut, to_chw

Transform = Callable[[np.ndarray, np.ndarray, np.random.Generator], tuple[np.ndarray, np.ndarray]]
"""Augments an RGB image `(H, W, 3)` and its class indices `(H, W)`, uint8, with what it draws from the generator."""


class Sample(TypedDict):
    """One image and its labels, as they travel from a worker to the device."""

    image: Tensor
    """`(3, H, W)` uint8, RGB."""
    target: Tensor
    """`(H, W)` uint8, class indices and `IGNORE`."""
    index: int
    """The position in the source."""


class Source(Protocol):
    """Where images and raw label maps come from: files, or a generator."""

    def __len__(self) -> int: ...

    def read(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Return an RGB image `(H, W, 3)`, uint8, and its label map `(H, W)`, ids as distributed, of 8 to 32 bits."""

    def name(self, index: int) -> str:
        """Return what to call the pair in a message or a picture."""

    def files(self, index: int) -> tuple[Path, ...]:
        """Return the files that the pair is read from; none where it is generated."""


class SegmentationDataset(Dataset[Sample]):
    """Samples of a source: read, checked, relabelled, augmented.

    A key is `(epoch, index)`; what is drawn for it depends on `(seed, epoch, index)` alone, so that neither the
    worker nor the rank that draws it changes it.
    """

    def __init__(self, source: Source, spec: DatasetSpec, transform: Transform | None = None, seed: int = 0) -> None:
        self.source, self.spec, self.transform, self.seed = source, spec, transform, seed
        table = label_table(spec)
        # To one more than the class index, by which IGNORE is 0 and what is unknown the largest.
        self._table = (np.where(table < 0, spec.num_classes, table) + 1).astype(np.uint8)
        shift = label_shift(table, spec.num_classes)
        self._shift = None if shift is None else np.uint8((int(shift) + 1) % 256)

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        epoch, index = key
        if index == BLANK:
            blank = torch.full((3, 32, 32), IGNORE, dtype=torch.uint8)
            return {"image": blank, "target": blank[0], "index": index}
        pixels, ids = self.source.read(index)
        labels = self.relabel(ids, index)
        if self.transform is not None:
            pixels, labels = self.transform(pixels, labels, np.random.default_rng((self.seed, epoch, index)))
        return {
            "image": torch.from_numpy(to_chw(pixels)),
            "target": torch.from_numpy(np.ascontiguousarray(labels)),
            "index": index,
        }

    def relabel(self, ids: np.ndarray, index: int) -> np.ndarray:
        """Replace ids of the file by class indices; an id that the data set does not have raises."""
        if ids.dtype != np.uint8 or self.spec.num_classes == IGNORE:
            found = look_up(ids, self.spec.labels)
            self._refuse(ids, found < 0, index)
            return found.astype(np.uint8)
        # Where an addition does, it takes a tenth of the time of looking up; so does a maximum, of comparing.
        labels = apply_lut(ids, self._table) if self._shift is None else ids + self._shift
        if labels.max() > self.spec.num_classes:
            self._refuse(ids, labels > self.spec.num_classes, index)
        labels -= 1
        return labels

    def _refuse(self, ids: np.ndarray, unknown: np.ndarray, index: int) -> None:
        """Raise UserError for the `unknown` ids, if there are any."""
        if unknown.any():
            raise unknown_ids(self.source.name(index), np.unique(ids[unknown]).tolist(), self.spec)
