"""Joint Pyramid Upsampling (FastFCN, section 3.3)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fastfcn_pl.core.types import FeatureInfo, UserError
from fastfcn_pl.models.layers import ConvNormAct, SeparableConv
from fastfcn_pl.models.necks.levels import three_levels
from fastfcn_pl.ops.interpolate import resize


class JPU(nn.Module):
    """Joint Pyramid Upsampling: an approximation of a dilated backbone's stride-8 map from C3, C4 and C5.

    Each level is brought to `width` channels and to C3's size; their concatenation, C5 first, goes through parallel
    separable convolutions, one for each of `dilations`. It appends a map
    `(B, len(dilations) * width, H/8, W/8)`. Faithful to `JPU` in the official `customize.py`.
    """

    def __init__(self, in_info: FeatureInfo, align_corners: bool, *, width: int, dilations: Sequence[int]) -> None:
        super().__init__()
        joined = three_levels(in_info, "JPU")
        if not dilations:
            raise UserError("model.neck.dilations=[]: JPU needs one branch at least, such as [1]")
        self.align_corners = align_corners
        self.convs = nn.ModuleList(ConvNormAct(channels, width) for channels in joined.channels)
        self.branches = nn.ModuleList(SeparableConv(3 * width, width, dilation) for dilation in dilations)
        self.out_info = in_info.append(len(dilations) * width, joined.strides[0])

    def forward(self, levels: list[Tensor]) -> list[Tensor]:
        maps = [conv(level) for conv, level in zip(self.convs, levels[-3:], strict=True)]
        size = maps[0].shape[-2:]
        joined = torch.cat([resize(x, size, self.align_corners) for x in reversed(maps)], dim=1)
        return [*levels, torch.cat([branch(joined) for branch in self.branches], dim=1)]
