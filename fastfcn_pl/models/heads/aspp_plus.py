"""The DeepLabV3+ head (arXiv 1802.02611)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fastfcn_pl.core.types import FeatureInfo, UserError
from fastfcn_pl.models.heads.aspp import ASPP
from fastfcn_pl.models.layers import ConvNormAct
from fastfcn_pl.ops.interpolate import resize


class ASPPPlusHead(nn.Module):
    """ASPP, then a decoder that adds the backbone's finest level: levels to logits `(B, num_classes, H/4, W/4)`.

    The finest level is reduced to `low_level_channels` before it is joined (section 3.1 and table 1: 48).
    """

    def __init__(
        self,
        in_info: FeatureInfo,
        num_classes: int,
        align_corners: bool,
        *,
        rates: Sequence[int],
        channels: int,
        low_level_channels: int,
        project_dropout: float,
        dropout: float,
    ) -> None:
        super().__init__()
        if in_info.strides[0] >= in_info.strides[-1]:
            raise UserError(
                f"model/head=aspp_plus adds a level finer than the neck's map, but strides are {in_info.strides}: "
                "use model/head=aspp, or a backbone with a level at stride 4"
            )
        self.align_corners = align_corners
        self.aspp = ASPP(in_info.channels[-1], channels, rates, 1, project_dropout, align_corners)
        self.reduce = ConvNormAct(in_info.channels[0], low_level_channels, 1)
        self.layers = nn.Sequential(
            ConvNormAct(channels + low_level_channels, channels),
            ConvNormAct(channels, channels),
            nn.Dropout2d(dropout),
            nn.Conv2d(channels, num_classes, 1),
        )

    def forward(self, levels: list[Tensor]) -> Tensor:
        fine = self.reduce(levels[0])
        coarse = resize(self.aspp(levels[-1]), fine.shape[-2:], self.align_corners)
        return self.layers(torch.cat([coarse, fine], dim=1))
