"""The Dice loss."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fastfcn_pl.core.types import IGNORE
from fastfcn_pl.losses.reduction import mean_over_ranks
from fastfcn_pl.ops.interpolate import resize_logits


class Dice(nn.Module):
    """One minus the soft Dice coefficient of V-Net (arXiv 1606.04797, section 3), averaged over the classes that occur.

    The coefficient of a class with probabilities p and truth g (0 or 1) is `2 sum(p g) / (sum(p^2) + sum(g^2))`. Sums
    run over the labelled pixels of the batch; classes without any are left out. Logits `(B, C, h, w)` and target
    `(B, H, W)` to a scalar.
    """

    def forward(self, logits: Tensor, target: Tensor, align_corners: bool) -> Tensor:
        probability = resize_logits(logits, target.shape[-2:], align_corners).softmax(1)
        classes, labelled = probability.shape[1], target != IGNORE
        labels = target.masked_fill(~labelled, 0).long()
        hits = probability.gather(1, labels.unsqueeze(1)).squeeze(1)[labelled]  # of the true class, (N,)
        overlap = hits.new_zeros(classes).index_add(0, labels[labelled], hits)
        predicted = probability.where(labelled.unsqueeze(1), 0).square().sum((0, 2, 3))
        size = torch.bincount(labels[labelled], minlength=classes)
        present = size > 0
        losses = 1 - 2 * overlap[present] / (predicted + size)[present]
        return mean_over_ranks(losses.sum(), present.sum())
