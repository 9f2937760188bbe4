"""Pixel-wise cross entropy."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from fastfcn_pl.contracts import IGNORE
from fastfcn_pl.losses.reduction import mean_over_labelled
from fastfcn_pl.resize import resize


class CrossEntropy(nn.Module):
    """Cross entropy at the label's size, in float32: logits `(B, C, h, w)` and target `(B, H, W)` to a scalar."""

    def forward(self, logits: Tensor, target: Tensor, align_corners: bool) -> Tensor:
        full = resize(logits.float(), target.shape[-2:], align_corners)
        total = F.cross_entropy(full, target.long(), ignore_index=IGNORE, reduction="sum")
        return mean_over_labelled(total, target)
