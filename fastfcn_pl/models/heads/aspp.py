"""The ASPP head: DeepLabV3 (arXiv 1706.05587)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fastfcn_pl.core.types import FeatureInfo
from fastfcn_pl.models.layers import ConvNormAct
from fastfcn_pl.ops.interpolate import resize


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling: 1x1, a 3x3 for each of `rates` and the image's mean, projected to `channels`."""

    def __init__(
        self,
        in_channels: int,
        channels: int,
        rates: Sequence[int],
        kernel_size: int,
        dropout: float,
        align_corners: bool,
    ) -> None:
        super().__init__()
        self.align_corners = align_corners
        self.branches = nn.ModuleList(
            [ConvNormAct(in_channels, channels, 1), *(ConvNormAct(in_channels, channels, 3, rate) for rate in rates)]
        )
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), ConvNormAct(in_channels, channels, 1))
        joined = (len(rates) + 2) * channels
        self.project = nn.Sequential(ConvNormAct(joined, channels, kernel_size), nn.Dropout2d(dropout))

    def forward(self, x: Tensor) -> Tensor:
        pooled = resize(self.pool(x), x.shape[-2:], self.align_corners)
        return self.project(torch.cat([*(branch(x) for branch in self.branches), pooled], dim=1))


class ASPPHead(nn.Module):
    """ASPP, 3x3 convolution, classifier: levels to logits `(B, num_classes, H/s, W/s)`.

    Faithful to `DeepLabV3Head` in the official `deeplabv3.py`, which projects with a kernel of 1 and refines with a
    3x3 convolution; mmsegmentation's `ASPPHead` projects with a kernel of 3 and does not `refine`.
    """

    def __init__(
        self,
        in_info: FeatureInfo,
        num_classes: int,
        align_corners: bool,
        *,
        rates: Sequence[int],
        channels: int,
        project_kernel_size: int,
        project_dropout: float,
        refine: bool,
        dropout: float,
    ) -> None:
        super().__init__()
        self.aspp = ASPP(in_info.channels[-1], channels, rates, project_kernel_size, project_dropout, align_corners)
        self.layers = nn.Sequential(
            ConvNormAct(channels, channels) if refine else nn.Identity(),
            nn.Dropout2d(dropout),
            nn.Conv2d(channels, num_classes, 1),
        )

    def forward(self, levels: list[Tensor]) -> Tensor:
        return self.layers(self.aspp(levels[-1]))
