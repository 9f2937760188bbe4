"""Sums over regions, which losses of the overlap share."""

from __future__ import annotations

import torch
from torch import Tensor

from fastfcn_pl.core.types import IGNORE


def region_sums(probability: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return probabilities that are 0 where nothing is labelled, and each class's sum in its region and its pixels.

    `probability` is `(B, C, H, W)`, `target` `(B, H, W)`; the sums of the true class's probabilities and the numbers of
    labelled pixels are `(C,)`, over the batch.
    """
    classes, labelled = probability.shape[1], target != IGNORE
    labels = target.masked_fill(~labelled, 0).long()
    hits = probability.gather(1, labels.unsqueeze(1)).squeeze(1)[labelled]  # of the true class, (N,)
    overlap = hits.new_zeros(classes).index_add(0, labels[labelled], hits)
    size = torch.bincount(labels[labelled], minlength=classes)
    return probability.where(labelled.unsqueeze(1), 0), overlap, size
