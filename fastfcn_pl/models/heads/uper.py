"""The UPerNet head (arXiv 1807.10221): pyramid pooling on top of a feature pyramid."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fastfcn_pl.core.types import FeatureInfo
from fastfcn_pl.models.heads.psp import PyramidPooling
from fastfcn_pl.models.layers import ConvNormAct
from fastfcn_pl.ops.interpolate import resize


class UPerHead(nn.Module):
    """Pyramid pooling on the last map, joined from the top down with every finer level: `(B, num_classes, H/4, W/4)`.

    Without a neck the last map is C5 and the finer levels are C2, C3, C4, as in the paper (figure 4). After JPU they
    are its map and C2.
    """

    def __init__(
        self,
        in_info: FeatureInfo,
        num_classes: int,
        align_corners: bool,
        *,
        bins: Sequence[int],
        channels: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.align_corners = align_corners
        finer = [i for i, stride in enumerate(in_info.strides) if stride < in_info.strides[-1]]
        self.finer = finer
        top = in_info.channels[-1]
        self.pyramid = nn.Sequential(
            PyramidPooling(top, channels, bins, align_corners), ConvNormAct(top + len(bins) * channels, channels)
        )
        self.laterals = nn.ModuleList(ConvNormAct(in_info.channels[i], channels, 1) for i in finer)
        self.smooth = nn.ModuleList(ConvNormAct(channels, channels) for _ in finer)
        self.layers = nn.Sequential(
            ConvNormAct((len(finer) + 1) * channels, channels),
            nn.Dropout2d(dropout),
            nn.Conv2d(channels, num_classes, 1),
        )

    def forward(self, levels: list[Tensor]) -> Tensor:
        maps = [self.pyramid(levels[-1])]  # coarsest first
        coarse = maps[0]
        for i in reversed(range(len(self.finer))):
            fine = self.laterals[i](levels[self.finer[i]])
            coarse = fine + resize(coarse, fine.shape[-2:], self.align_corners)
            maps.append(self.smooth[i](coarse))
        size = maps[-1].shape[-2:]
        return self.layers(torch.cat([resize(x, size, self.align_corners) for x in reversed(maps)], dim=1))
