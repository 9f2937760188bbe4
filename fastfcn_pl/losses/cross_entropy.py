"""Pixel-wise cross entropy."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fastfcn_pl.core.types import IGNORE, UserError
from fastfcn_pl.losses.reduction import mean_over_ranks
from fastfcn_pl.ops.upsampled_cross_entropy import upsampled_cross_entropy


class CrossEntropy(nn.Module):
    """Cross entropy at the label's size, in float32: logits `(B, C, h, w)` and target `(B, H, W)` to a scalar.

    `class_weights` (one for each class, or null) weights pixels by their class in the sum and in the count that divides
    it. `label_smoothing` is the share of a pixel's target that is spread evenly over all classes.
    """

    weights: Tensor | None

    def __init__(self, *, class_weights: Sequence[float] | None, label_smoothing: float) -> None:
        super().__init__()
        if not 0 <= label_smoothing < 1:
            raise UserError(f"label_smoothing={label_smoothing}: give a share of at least 0 and below 1")
        self.label_smoothing = label_smoothing
        weights = None if class_weights is None else torch.tensor(class_weights, dtype=torch.float32)
        self.register_buffer("weights", weights, persistent=False)

    def forward(self, logits: Tensor, target: Tensor, align_corners: bool) -> Tensor:
        if self.weights is not None and len(self.weights) != logits.shape[1]:
            raise UserError(f"class_weights has {len(self.weights)} numbers for {logits.shape[1]} classes")
        total = upsampled_cross_entropy(logits, target, self.weights, self.label_smoothing, align_corners)
        labelled = target != IGNORE
        if self.weights is None:
            return mean_over_ranks(total, labelled.sum())
        weights = self.weights[target.long().masked_fill(~labelled, 0)]  # indexing by a mask would wait for a GPU
        return mean_over_ranks(total, (weights * labelled).sum())
