"""Scores of approximated features over a whole split: the variance that is left unexplained, and cosine similarity."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Self

import numpy as np
import torch.nn.functional as F
from torch import Tensor


class FeatureSums(NamedTuple):
    """Sums over the pixels of one image's feature map."""

    position: int
    """Place of the image in the split."""
    pixels: int
    squared_error: float
    cosine: float
    squares: float
    """Sum of the squares of the true features."""
    channels: np.ndarray
    """`(C,)`: sum of each channel of the true features."""

    @classmethod
    def of(cls, approximated: Tensor, true: Tensor, position: int) -> Self:
        """Sum up the features of one image, both `(C, h, w)`."""
        approximated, true = approximated.double().flatten(1), true.double().flatten(1)
        return cls(
            position=position,
            pixels=true.shape[1],
            squared_error=(approximated - true).square().sum().item(),
            cosine=F.cosine_similarity(approximated, true, dim=0).sum().item(),
            squares=true.square().sum().item(),
            channels=true.sum(1).cpu().numpy(),
        )


def image_table(images: Sequence[FeatureSums]) -> np.ndarray:
    """Return `(N, 4)`: squared error, squared distance of the true features from their mean, cosine, pixels.

    The mean is that of each channel over all images, so that sums of rows are sums over those images.
    """
    pixels = np.array([image.pixels for image in images], np.float64)
    channels = np.stack([image.channels for image in images])
    mean = channels.sum(0) / pixels.sum()
    squares = np.array([image.squares for image in images])
    spread = np.maximum(squares - 2 * channels @ mean + pixels * (mean @ mean), 0)
    return np.stack([[i.squared_error for i in images], spread, [i.cosine for i in images], pixels], 1)


def approximation_scores(sums: np.ndarray) -> np.ndarray:
    """Return R^2 and mean cosine similarity `(..., 2)` of sums `(..., 4)` over rows of `image_table`; NaN for 0 / 0."""
    error, spread, cosine, pixels = np.moveaxis(sums, -1, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.stack([1 - error / spread, cosine / pixels], -1)
