"""Upsampling without weights."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from fastfcn_pl.ops.interpolate import resize


class Bilinear(nn.Module):
    """Bilinear interpolation of `(B, C, h, w)` to the size of `fine` `(B, C, H, W)`, whatever the ratio."""

    def __init__(self, channels: int, align_corners: bool, scale: int) -> None:
        super().__init__()
        self.align_corners = align_corners

    def forward(self, coarse: Tensor, fine: Tensor) -> Tensor:
        return resize(coarse, fine.shape[-2:], self.align_corners)


class Nearest(nn.Module):
    """Nearest neighbours of `(B, C, h, w)` at the size of `fine` `(B, C, H, W)`, whatever the ratio.

    It is the upsampling of the FPN paper (arXiv 1612.03144, section 3).
    """

    def __init__(self, channels: int, align_corners: bool, scale: int) -> None:
        super().__init__()

    def forward(self, coarse: Tensor, fine: Tensor) -> Tensor:
        return F.interpolate(coarse, fine.shape[-2:], mode="nearest")
