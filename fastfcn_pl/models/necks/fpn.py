"""Feature Pyramid Network (arXiv 1612.03144), as a neck instead of JPU."""

from __future__ import annotations

from torch import Tensor, nn

from fastfcn_pl.core.types import FeatureInfo
from fastfcn_pl.models.layers import ConvNormAct
from fastfcn_pl.models.necks.levels import three_levels
from fastfcn_pl.ops.interpolate import resize


class FPN(nn.Module):
    """C3, C4, C5 brought to `width` by 1x1 convolutions, added from the top down, smoothed: `(B, width, H/8, W/8)`."""

    def __init__(self, in_info: FeatureInfo, align_corners: bool, *, width: int) -> None:
        super().__init__()
        joined = three_levels(in_info, "FPN")
        self.align_corners = align_corners
        self.laterals = nn.ModuleList(nn.Conv2d(channels, width, 1) for channels in joined.channels)
        self.smooth = ConvNormAct(width, width)
        self.out_info = in_info.append(width, joined.strides[0])

    def forward(self, levels: list[Tensor]) -> list[Tensor]:
        fine, middle, coarse = (lateral(x) for lateral, x in zip(self.laterals, levels[-3:], strict=True))
        for lower in (middle, fine):
            coarse = lower + resize(coarse, lower.shape[-2:], self.align_corners)
        return [*levels, self.smooth(coarse)]
