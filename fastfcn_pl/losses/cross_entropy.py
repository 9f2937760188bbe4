"""Pixel-wise cross entropy."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from fastfcn_pl.core.types import IGNORE, UserError
from fastfcn_pl.losses.class_weights import ClassWeighted
from fastfcn_pl.losses.reduction import mean_over_ranks
from fastfcn_pl.ops.upsampled_cross_entropy import upsampled_cross_entropy


class CrossEntropy(ClassWeighted):
    """Cross entropy at the label's size, in float32: logits `(B, C, h, w)` and target `(B, H, W)` to a scalar.

    `class_weights` (one for each class, or null) weights pixels by their class in the sum and in the count that divides
    it. `label_smoothing` is the share of a pixel's target that is spread evenly over all classes.
    """

    def __init__(self, *, class_weights: Sequence[float] | str | None, label_smoothing: float) -> None:
        super().__init__(class_weights)
        if not 0 <= label_smoothing < 1:
            raise UserError(f"label_smoothing={label_smoothing}: give a share of at least 0 and below 1")
        self.label_smoothing = label_smoothing

    def forward(self, logits: Tensor, target: Tensor, align_corners: bool) -> Tensor:
        self.check_classes(logits.shape[1])
        total = upsampled_cross_entropy(logits, target, self.weights, self.label_smoothing, align_corners)
        labelled = target != IGNORE
        if self.weights is None:
            return mean_over_ranks(total, labelled.sum())
        weights = self.weights[target.long().masked_fill(~labelled, 0)]  # indexing by a mask would wait for a GPU
        return mean_over_ranks(total, (weights * labelled).sum())
