"""Comparison of an exported file with the network that it was exported from."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from fastfcn_pl.core.types import DatasetSpec, UserError
from fastfcn_pl.evaluation.protocols import logits
from fastfcn_pl.tools.export.formats import reason_of

if TYPE_CHECKING:
    from fastfcn_pl.training.module import SegmentationModule

_SIZES = [(1, 97, 129), (1, 65, 97), (1, 131, 77), (3, 64, 128), (2, 96, 96), (3, 33, 160), (1, 224, 352)]
"""Batch, height and width. Odd sizes, multiples of 32 and batches reveal operations that depend on the size."""


@dataclass(frozen=True)
class Agreement:
    """Smallest shares of equally labelled pixels in a batch of real images and of noise, and difference of logits.

    `difference` is the largest absolute difference, in standard deviations of the network's logits.
    """

    real: float
    noise: float
    difference: float

    @property
    def least(self) -> float:
        return min(self.real, self.noise)


class Check:
    """Comparison of an exported network with a checkpoint's on real and random images of many sizes."""

    def __init__(self, module: SegmentationModule, real_images: Sequence[Tensor], max_size: int | None = None) -> None:
        """Compare on `real_images` `(C, H, W)`, of which parts of up to `max_size` pixels a side are used."""
        sizes = [size for size in _SIZES if max_size is None or max(size[1:]) <= max_size]
        real = _real_batches([image[:, :max_size, :max_size] for image in real_images], sizes)
        self.module, noise = module, synthetic_images(module.spec, sizes)
        self.batches, self._real_count = [*real, *noise], len(real)
        self.sizes = len({batch.shape[2:] for batch in self.batches})
        self._labels: list[Tensor] = []

    def logits(self, run: Callable[[Tensor], Tensor]) -> Agreement:
        """Compare the logits that `run` returns with the network's."""
        shares, difference, self._labels = [], 0.0, []
        for images in self.batches:
            expected = self._expected(images)
            result = _run_checked(run, images, tuple(expected.shape))
            self._labels.append(expected.argmax(1).to(torch.uint8))
            shares.append(_equal_share(result.argmax(1), self._labels[-1]))
            largest = 0.0 if result.equal(expected) else float((result - expected).abs().max() / expected.std())
            difference = max(difference, math.inf if math.isnan(largest) else largest)
        return self._agreement(shares, difference)

    def labels(self, run: Callable[[Tensor], Tensor]) -> Agreement:
        """Compare the labels that `run` returns with the network's. Call `logits` first."""
        shares = [
            _equal_share(_run_checked(run, images, tuple(expected.shape)), expected)
            for images, expected in zip(self.batches, self._labels, strict=True)
        ]
        return self._agreement(shares, math.nan)

    def _expected(self, images: Tensor) -> Tensor:
        try:
            with torch.no_grad():
                return logits(self.module.model, self.module.normalize(images))
        except (AssertionError, IndexError, RuntimeError, ValueError) as error:  # some backbones have a fixed size
            size = f"{images.shape[2]}x{images.shape[3]}"
            raise UserError(
                f"the checkpoint's network does not run on images of {size} ({reason_of(error)}), but exported files "
                "must run on any size: use another backbone"
            ) from error

    def _agreement(self, shares: list[float], difference: float) -> Agreement:
        return Agreement(min(shares[: self._real_count]), min(shares[self._real_count :]), difference)


def _real_batches(images: Sequence[Tensor], sizes: Sequence[tuple[int, int, int]]) -> list[Tensor]:
    """Return `images` `(C, H, W)` in their own sizes, and batches of them resized to `sizes`."""
    batches = [image[None] for image in images]
    for i, (count, height, width) in enumerate(sizes):
        selected = [images[(i + k) % len(images)][None].float() for k in range(count)]
        resized = [F.interpolate(x, (height, width), mode="bilinear", antialias=True) for x in selected]
        batch = torch.cat(resized)
        batches.append(batch.round().clamp(0, 255).to(torch.uint8) if images[0].dtype == torch.uint8 else batch)
    return batches


def synthetic_images(spec: DatasetSpec, sizes: Sequence[tuple[int, int, int]]) -> list[Tensor]:
    """Return batches of noise of `sizes` `(B, H, W)`: bytes of RGB, or bands of the data set's mean and std."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(count, spec.channels, height, width) for count, height, width in sizes]
    if spec.bands is None:
        return [torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8) for shape in shapes]
    mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in spec.bands.statistics)
    return [torch.randn(shape, generator=generator) * std + mean for shape in shapes]


def _run_checked(run: Callable[[Tensor], Tensor], images: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return the result of `run`; raises UserError if it fails or has another shape."""
    size = f"{len(images)} images of {images.shape[2]}x{images.shape[3]}"
    try:
        with torch.no_grad():
            result = run(images)
    except Exception as error:  # runtimes raise errors of many kinds
        raise UserError(
            f"the exported file does not run on {size} ({reason_of(error)}) and was removed: try another format"
        ) from error
    if tuple(result.shape) != shape:
        raise UserError(
            f"the exported file returns {tuple(result.shape)} for {size}, not {shape}, and was removed: try another "
            "format"
        )
    return result


def _equal_share(labels: Tensor, expected: Tensor) -> float:
    return float((labels == expected).double().mean())
