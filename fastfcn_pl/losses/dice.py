"""The Dice loss."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fastfcn_pl.contracts import IGNORE
from fastfcn_pl.losses.reduction import mean_over_ranks
from fastfcn_pl.resize import resize_logits


class Dice(nn.Module):
    """One minus the soft Dice coefficient (Milletari et al. 2016), averaged over the classes that occur in the batch.

    Logits `(B, C, h, w)` and target `(B, H, W)` to a scalar; sums run over the labelled pixels of the batch.
    """

    def forward(self, logits: Tensor, target: Tensor, align_corners: bool) -> Tensor:
        probability = resize_logits(logits, target.shape[-2:], align_corners).softmax(1)
        classes, labelled = probability.shape[1], target != IGNORE
        labels = target.masked_fill(~labelled, 0).long()
        hits = probability.gather(1, labels.unsqueeze(1)).squeeze(1)[labelled]  # of the true class, (N,)
        overlap = hits.new_zeros(classes).index_add(0, labels[labelled], hits)
        predicted = (probability * labelled.unsqueeze(1)).sum((0, 2, 3))
        size = torch.bincount(labels[labelled], minlength=classes)
        present = size > 0
        losses = 1 - 2 * overlap[present] / (predicted + size)[present]
        return mean_over_ranks(losses.sum(), present.sum())
