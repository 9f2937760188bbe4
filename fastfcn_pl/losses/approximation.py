"""Distances of approximated features from those that they approximate."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from fastfcn_pl.losses.reduction import mean_over_ranks


class RelativeMSE(nn.Module):
    """Squared error relative to the variance of the batch's features, which is 1 - R^2.

    Approximated and true features, `(2, B, C, h, w)`, to a scalar. The variance is about each channel's mean.
    """

    def forward(self, features: Tensor, target: Tensor, align_corners: bool) -> Tensor:
        approximated, true = features.float()
        spread = (true - true.mean((0, 2, 3), keepdim=True)).square().sum()
        return mean_over_ranks((approximated - true).square().sum(), spread)


class CosineDistance(nn.Module):
    """One minus the cosine similarity of approximated and true features, averaged over pixels.

    `(2, B, C, h, w)` to a scalar.
    """

    def forward(self, features: Tensor, target: Tensor, align_corners: bool) -> Tensor:
        approximated, true = features.float()
        distances = 1 - F.cosine_similarity(approximated, true, dim=1)
        return mean_over_ranks(distances.sum(), distances.new_tensor(distances.numel()))
