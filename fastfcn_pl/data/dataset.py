"""A data set that yields augmented samples, from any source of images and label maps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypedDict

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torch.utils.data import Dataset

from fastfcn_pl.contracts import IGNORE, DatasetSpec, UserError

Transform = Callable[[Image.Image, np.ndarray, np.random.Generator], tuple[np.ndarray, np.ndarray]]
"""Augments an RGB image and its class indices `(H, W)` with what it draws from the generator; arrays of uint8 out."""


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

    def read(self, index: int) -> tuple[Image.Image, Image.Image]:
        """Return an RGB image and its label map (mode L, ids as distributed), of one size."""

    def name(self, index: int) -> str:
        """Return what to call the pair in a message or a picture."""

    def files(self, index: int) -> tuple[Path, ...]:
        """Return the files that the pair is read from; none where it is generated."""


@dataclass(frozen=True)
class FileSource:
    """Pairs of image file and label file."""

    pairs: list[tuple[Path, Path]]

    def __len__(self) -> int:
        return len(self.pairs)

    def read(self, index: int) -> tuple[Image.Image, Image.Image]:
        image_path, mask_path = self.pairs[index]
        image, mask = _open(image_path).convert("RGB"), _open(mask_path)
        if mask.mode not in ("L", "P", "1"):
            raise UserError(f"{mask_path} is not a map of ids (its mode is {mask.mode}): store one 8-bit id a pixel")
        if image.size != mask.size:
            raise UserError(
                f"{mask_path} is {_size(mask)} but its image {image_path} is {_size(image)}: make them equal"
            )
        return image, Image.fromarray(np.asarray(mask, dtype=np.uint8))

    def name(self, index: int) -> str:
        return str(self.pairs[index][1])

    def files(self, index: int) -> tuple[Path, ...]:
        return self.pairs[index]


def _open(path: Path) -> Image.Image:
    """Read a whole image file, so that a truncated one is found here and named."""
    try:
        image = Image.open(path)
        image.load()
    except FileNotFoundError:
        raise UserError(f"{path} is missing: restore it, or take it off the split's list") from None
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise UserError(f"{path} cannot be read as an image ({error}): restore it or leave it out") from None
    return image


def _size(image: Image.Image) -> str:
    return f"{image.width}x{image.height}"


def label_table(spec: DatasetSpec) -> np.ndarray:
    """Return the int16 table `(256,)` from an id in a label file to a class index, `IGNORE`, or -1 for no such id."""
    table = np.full(256, -1, dtype=np.int16)
    if spec.remap:
        table[list(spec.remap)] = list(spec.remap.values())
    else:
        table[: spec.num_classes] = np.arange(spec.num_classes)
        table[IGNORE] = IGNORE
    return table


class SegmentationDataset(Dataset[Sample]):
    """Samples of a source: read, checked, relabelled, augmented.

    A key is `(epoch, index)`; what is drawn for it depends on `(seed, epoch, index)` alone, so that neither the
    worker nor the rank that draws it changes it.
    """

    def __init__(self, source: Source, spec: DatasetSpec, transform: Transform | None = None, seed: int = 0) -> None:
        self.source, self.spec, self.transform, self.seed = source, spec, transform, seed
        self._table = label_table(spec)

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        epoch, index = key
        image, mask = self.source.read(index)
        pixels, labels = np.asarray(image), self._relabel(mask, index)
        if self.transform is not None:
            pixels, labels = self.transform(image, labels, np.random.default_rng((self.seed, epoch, index)))
        return {
            "image": torch.from_numpy(np.array(pixels.transpose(2, 0, 1), order="C")),
            "target": torch.from_numpy(np.array(labels, order="C")),
            "index": index,
        }

    def _relabel(self, mask: Image.Image, index: int) -> np.ndarray:
        """Replace ids of the file by class indices; an id that the data set does not have raises."""
        ids = np.asarray(mask)
        labels = self._table[ids]
        if labels.min() < 0:
            unknown = sorted(int(i) for i in np.unique(ids[labels < 0]))
            raise UserError(
                f"{self.source.name(index)} holds id {', '.join(map(str, unknown))}, which {self.spec.name} "
                f"({self.spec.num_classes} classes) does not have: mend the mask, the classes or the remap"
            )
        return labels.astype(np.uint8)
