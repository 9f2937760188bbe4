"""Online hard example mining."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastfcn_pl.core.types import IGNORE
from fastfcn_pl.losses.reduction import mean_over_ranks
from fastfcn_pl.ops.interpolate import resize_logits


class OHEM(nn.Module):
    """Mean cross entropy over the hard pixels of a batch (Shrivastava et al. 2016, for pixels).

    A pixel is hard if the probability of its true class is below a limit: `threshold`, or the probability at index
    `min_kept * B` of all labelled pixels of the batch, sorted, if that is higher (the last one if there are fewer).
    Pixels that equal the limit are not kept, as in mmsegmentation's `OHEMPixelSampler`. Logits
    `(B, C, h, w)` and target `(B, H, W)` to a scalar.
    """

    def __init__(self, *, threshold: float, min_kept: int) -> None:
        super().__init__()
        self.threshold, self.min_kept = threshold, min_kept

    def forward(self, logits: Tensor, target: Tensor, align_corners: bool) -> Tensor:
        full = resize_logits(logits, target.shape[-2:], align_corners)
        labelled = target != IGNORE
        labels = target.long().masked_fill(~labelled, 0)
        losses = F.cross_entropy(full, labels, reduction="none")[labelled]
        probability = full.detach().softmax(1).gather(1, labels.unsqueeze(1)).squeeze(1)[labelled]
        limit = probability.new_tensor(self.threshold)
        if probability.numel():
            place = min(self.min_kept * len(target), probability.numel() - 1)
            limit = torch.maximum(limit, probability.sort().values[place])
        hard = probability < limit
        return mean_over_ranks((losses * hard).sum(), hard.sum())
