"""The comparison of an exported file with the network that it was made of."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from fastfcn_pl.core.types import UserError
from fastfcn_pl.evaluation.protocols import logits
from fastfcn_pl.tools.export.formats import reason_of

if TYPE_CHECKING:
    from fastfcn_pl.training.module import SegmentationModule

_SIZES = [(1, 97, 129), (1, 65, 97), (1, 131, 77), (3, 64, 128), (2, 96, 96), (3, 33, 160), (1, 224, 352)]
"""Odd sizes, multiples of 32, batches: what rounds or branches on a size shows at one of them."""


@dataclass(frozen=True)
class Agreement:
    """Smallest shares of pixels of a batch that are labelled alike, on real images and on noise, and logits' distance.

    `difference` is the largest one of logits, in standard deviations of the network's.
    """

    real: float
    noise: float
    difference: float

    @property
    def least(self) -> float:
        return min(self.real, self.noise)


class Check:
    """Images of many sizes, real and random ones, and what a checkpoint's own network makes of them."""

    def __init__(self, module: SegmentationModule, pictures: Sequence[Tensor]) -> None:
        self.module, real, noise = module, _real(pictures), _random()
        self.batches, self._count_of_real = [*real, *noise], len(real)
        self.sizes = len({batch.shape[2:] for batch in self.batches})
        self._labels: list[Tensor] = []

    def logits(self, run: Callable[[Tensor], Tensor]) -> Agreement:
        """Compare the logits that `run` returns with the network's."""
        shares, difference, self._labels = [], 0.0, []
        for images in self.batches:
            expected = self._expected(images)
            result = _result(run, images, tuple(expected.shape))
            self._labels.append(expected.argmax(1).to(torch.uint8))
            shares.append(_share(result.argmax(1), self._labels[-1]))
            largest = 0.0 if result.equal(expected) else float((result - expected).abs().max() / expected.std())
            difference = max(difference, math.inf if math.isnan(largest) else largest)
        return self._agreement(shares, difference)

    def labels(self, run: Callable[[Tensor], Tensor]) -> Agreement:
        """Compare the labels that `run` returns with the network's, after `logits` has."""
        shares = [
            _share(_result(run, images, tuple(expected.shape)), expected)
            for images, expected in zip(self.batches, self._labels, strict=True)
        ]
        return self._agreement(shares, math.nan)

    def _expected(self, images: Tensor) -> Tensor:
        try:
            with torch.no_grad():
                return logits(self.module.model, self.module.normalize(images))
        except (AssertionError, IndexError, RuntimeError, ValueError) as error:  # of a backbone of certain sizes only
            size = f"{images.shape[2]}x{images.shape[3]}"
            raise UserError(
                f"the checkpoint's network itself does not run on images of {size} ({reason_of(error)}), but a file is "
                "for those of any size: take another backbone"
            ) from error

    def _agreement(self, shares: list[float], difference: float) -> Agreement:
        return Agreement(min(shares[: self._count_of_real]), min(shares[self._count_of_real :]), difference)


def _real(pictures: Sequence[Tensor]) -> list[Tensor]:
    """Return `pictures` `(3, H, W)` in their own sizes, and batches of them resized to `_SIZES`."""
    batches = [picture[None] for picture in pictures]
    for i, (count, height, width) in enumerate(_SIZES):
        chosen = [pictures[(i + k) % len(pictures)][None].float() for k in range(count)]
        resized = [F.interpolate(x, (height, width), mode="bilinear", antialias=True) for x in chosen]
        batches.append(torch.cat(resized).round().clamp(0, 255).to(torch.uint8))
    return batches


def _random() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(count, 3, height, width) for count, height, width in _SIZES]
    return [torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8) for shape in shapes]


def _result(run: Callable[[Tensor], Tensor], images: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return what `run` makes of `images`; raises UserError where it fails, or where that is not of the `shape`."""
    size = f"{len(images)} images of {images.shape[2]}x{images.shape[3]}"
    try:
        with torch.no_grad():
            result = run(images)
    except Exception as error:  # runtimes raise errors of many kinds
        raise UserError(
            f"the file does not run on {size} ({reason_of(error)}): it is not kept; try another format"
        ) from error
    if tuple(result.shape) != shape:
        raise UserError(
            f"the file returns {tuple(result.shape)} for {size}, not {shape}: it is not kept; try another format"
        )
    return result


def _share(labels: Tensor, expected: Tensor) -> float:
    return float((labels == expected).double().mean())
