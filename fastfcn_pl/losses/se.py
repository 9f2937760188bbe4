"""The semantic encoding loss of EncNet (arXiv 1803.08904, section 3.1)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastfcn_pl.core.types import IGNORE
from fastfcn_pl.losses.reduction import mean_over_ranks


class SELoss(nn.Module):
    """Binary cross entropy of the classes that occur in an image, averaged over images and classes.

    SE logits `(B, C)` and target `(B, H, W)` to a scalar. An image without a labelled pixel is left out.
    """

    def forward(self, se_logits: Tensor, target: Tensor, align_corners: bool) -> Tensor:
        classes = se_logits.shape[1]
        se_logits = se_logits if se_logits.dtype == torch.float64 else se_logits.float()
        labels = target.long().masked_fill(target == IGNORE, classes).flatten(1)
        occurs = torch.zeros(len(target), classes + 1, device=target.device)
        occurs = occurs.scatter_(1, labels, 1.0)[:, :classes]
        losses = F.binary_cross_entropy_with_logits(se_logits, occurs.to(se_logits), reduction="none").mean(1)
        labelled = occurs.any(1)
        return mean_over_ranks((losses * labelled).sum(), labelled.sum())
