"""Sampling of images by the rarity of the classes that they contain."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from fastfcn_pl.core.types import IGNORE, UserError
from fastfcn_pl.data.dataset import SegmentationDataset
from fastfcn_pl.data.io.image_files import FileSource


class RareClass:
    """Draw a class, rare ones more often, and then an image with it (DAFormer, arXiv 2111.14887, section 3.3).

    A class with the share f of the labelled pixels has the probability `exp((1 - f) / temperature)`, up to a constant
    factor. Each image with at least `min_pixels` pixels of the class, at its full size, has the same chance; if there
    is none, each with any pixel of it. Unlike in DAFormer, crops are not drawn again if they miss the class.
    """

    def __init__(self, *, temperature: float, min_pixels: int) -> None:
        if temperature <= 0:
            raise UserError(f"data.sampler.temperature={temperature}: use a number above 0, such as 0.01")
        if min_pixels < 1:
            raise UserError(f"data.sampler.min_pixels={min_pixels}: use 1 or more")
        self.temperature, self.min_pixels = temperature, min_pixels
        self._probabilities = torch.empty(0)
        self._images: list[Tensor] = []

    def prepare(self, dataset: SegmentationDataset, rank: int, world_size: int) -> None:
        """Count the pixels of each class in all masks, once; every rank counts its share."""
        if self._images:  # the loader is made again, as with trainer.reload_dataloaders_every_n_epochs
            return
        if rank == 0:
            print(f"counting the classes of {len(dataset)} masks for data/sampler=rare_class", flush=True)
        pixels = count_pixels(dataset, range(rank, len(dataset), world_size))
        if dist.is_available() and dist.is_initialized() and world_size > 1:
            shares: list[dict[int, np.ndarray] | None] = [None] * world_size
            dist.all_gather_object(shares, pixels)
            pixels = {index: counts for share in shares if share for index, counts in share.items()}
        self.fit(np.stack([pixels[index] for index in range(len(dataset))]))

    def fit(self, pixels: np.ndarray) -> None:
        """Set the probabilities from the numbers of pixels `(images, classes)`."""
        total = pixels.sum(0)
        occurring = np.flatnonzero(total)
        if not len(occurring):
            raise UserError("data/sampler=rare_class: every pixel of the training masks is ignored: check the remap")
        shares = torch.from_numpy(total[occurring] / total.sum())
        self._probabilities = ((1 - shares) / self.temperature).softmax(0)
        self._images = []
        for c in occurring:
            enough = np.flatnonzero(pixels[:, c] >= self.min_pixels)
            self._images.append(torch.from_numpy(enough if len(enough) else np.flatnonzero(pixels[:, c])))

    def order(self, count: int, rng: torch.Generator) -> Tensor:
        """Return `count` indices of images, with repetitions."""
        classes = torch.multinomial(self._probabilities, count, replacement=True, generator=rng)
        places = torch.rand(count, generator=rng, dtype=torch.float64)
        indices = torch.empty(count, dtype=torch.int64)
        for c, images in enumerate(self._images):
            drawn = classes == c
            indices[drawn] = images[(places[drawn] * len(images)).long()]
        return indices


def count_pixels(dataset: SegmentationDataset, indices: Sequence[int]) -> dict[int, np.ndarray]:
    """Return the pixels of each class `(classes,)` in the masks of `indices`."""

    def count(index: int) -> np.ndarray:
        source = dataset.source
        ids = source.ids(index) if isinstance(source, FileSource) else source.read(index)[1]
        return np.bincount(dataset.relabel(ids, index).ravel(), minlength=IGNORE + 1)[: dataset.spec.num_classes]

    with ThreadPoolExecutor() as threads:
        return dict(zip(indices, threads.map(count, indices), strict=True))
