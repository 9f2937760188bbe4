"""The PSP head: Pyramid Scene Parsing (arXiv 1612.01105)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fastfcn_pl.core.types import FeatureInfo
from fastfcn_pl.models.layers import ConvNormAct, PooledMaps
from fastfcn_pl.models.requirements import check_bins


class PyramidPooling(PooledMaps):
    """The map and its average pools of `bins` cells a side, each of `channels`: `(B, C + n * channels, H, W)`."""

    def __init__(self, in_channels: int, channels: int, bins: Sequence[int], align_corners: bool) -> None:
        check_bins("model.head.bins", bins)
        super().__init__(bins, lambda: [ConvNormAct(in_channels, channels, 1)], align_corners)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, *self.pooled(x)], dim=1)


class PSPHead(nn.Module):
    """Pyramid pooling, 3x3 convolution, classifier: levels to logits `(B, num_classes, H/s, W/s)`.

    `pool_channels` is the width of each pool's map, `channels` that of the convolution. Faithful to `PSPHead` in the
    official `psp.py`, and to `PSPHead` of mmsegmentation, which pools in the same way.
    """

    def __init__(
        self,
        in_info: FeatureInfo,
        num_classes: int,
        align_corners: bool,
        *,
        bins: Sequence[int],
        pool_channels: int,
        channels: int,
        dropout: float,
    ) -> None:
        super().__init__()
        in_channels = in_info.channels[-1]
        self.pyramid = PyramidPooling(in_channels, pool_channels, bins, align_corners)
        self.layers = nn.Sequential(
            ConvNormAct(in_channels + len(bins) * pool_channels, channels),
            nn.Dropout2d(dropout),
            nn.Conv2d(channels, num_classes, 1),
        )

    def forward(self, levels: list[Tensor]) -> Tensor:
        return self.layers(self.pyramid(levels[-1]))
