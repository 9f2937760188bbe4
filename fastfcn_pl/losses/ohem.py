"""Online hard example mining."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastfcn_pl.contracts import IGNORE
from fastfcn_pl.losses.reduction import mean_over_ranks
from fastfcn_pl.resize import resize_logits


class OHEM(nn.Module):
    """Cross entropy over hard pixels: those whose true class has a probability below `threshold`.

    At least `min_kept` pixels an image of the batch are kept, the hardest ones (Shrivastava et al. 2016; as
    `OHEMPixelSampler` of mmsegmentation does it). Logits `(B, C, h, w)` and target `(B, H, W)` to a scalar.
    """

    def __init__(self, *, threshold: float, min_kept: int) -> None:
        super().__init__()
        self.threshold, self.min_kept = threshold, min_kept

    def forward(self, logits: Tensor, target: Tensor, align_corners: bool) -> Tensor:
        full = resize_logits(logits, target.shape[-2:], align_corners)
        losses = F.cross_entropy(full, target.long(), ignore_index=IGNORE, reduction="none")[target != IGNORE]
        kept = min(self.min_kept * len(target), losses.numel())
        limit = losses.new_tensor(self.threshold).log().neg()  # p < threshold is loss > -log(threshold)
        if kept:
            limit = torch.minimum(limit, losses.detach().topk(kept).values[-1])
        hard = losses >= limit
        return mean_over_ranks((losses * hard).sum(), hard.sum())
