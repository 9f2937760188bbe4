"""The paper's plain baseline: bilinear upsampling."""

from __future__ import annotations

from torch import Tensor, nn

from fastfcn_pl.core.types import FeatureInfo
from fastfcn_pl.models.necks.levels import three_levels
from fastfcn_pl.ops.interpolate import resize


class Bilinear(nn.Module):
    """Resize the last map to stride 8, the stride of JPU's map (FastFCN, section 4.2): `(B, C5, H/8, W/8)`."""

    def __init__(self, in_info: FeatureInfo, align_corners: bool) -> None:
        super().__init__()
        stride, *_ = three_levels(in_info, "the bilinear neck").strides
        self.align_corners = align_corners
        self.out_info = in_info.append(in_info.channels[-1], stride)

    def forward(self, levels: list[Tensor]) -> list[Tensor]:
        return [*levels, resize(levels[-1], levels[-3].shape[-2:], self.align_corners)]
