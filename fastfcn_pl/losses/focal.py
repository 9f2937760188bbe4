"""The focal loss."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fastfcn_pl.core.types import IGNORE, UserError
from fastfcn_pl.losses.class_weights import ClassWeighted
from fastfcn_pl.losses.reduction import mean_over_ranks
from fastfcn_pl.ops.interpolate import resize_logits


class Focal(ClassWeighted):
    """Cross entropy that gives well-classified pixels less weight (arXiv 1708.02002, equation 5), in its softmax form.

    A pixel whose true class c has the probability p costs `-a_c (1 - p)^gamma log(p)`; a is `class_weights`, or 1. The
    mean is over the labelled pixels; the paper divides by the number of objects instead. Logits `(B, C, h, w)` and
    target `(B, H, W)` to a scalar. Raises UserError for a negative `gamma`.
    """

    def __init__(self, *, gamma: float, class_weights: Sequence[float] | str | None) -> None:
        super().__init__(class_weights)
        if gamma < 0:
            raise UserError(f"gamma={gamma} of the focal loss: use 0 (cross entropy) or more")
        self.gamma = gamma

    def forward(self, logits: Tensor, target: Tensor, align_corners: bool) -> Tensor:
        self.check_classes(logits.shape[1])
        labelled = target != IGNORE
        labels = target.long().masked_fill(~labelled, 0)
        log_probabilities = resize_logits(logits, target.shape[-2:], align_corners).log_softmax(1)
        log_p = log_probabilities.gather(1, labels.unsqueeze(1)).squeeze(1)
        # Away from 0, where the power has no gradient if gamma is below 1.
        losses = -((-torch.expm1(log_p)).clamp(min=1e-6) ** self.gamma) * log_p
        if self.weights is not None:
            losses = losses * self.weights[labels]
        return mean_over_ranks(losses.where(labelled, 0).sum(), labelled.sum())
