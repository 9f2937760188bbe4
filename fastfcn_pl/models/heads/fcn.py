"""The FCN head."""

from __future__ import annotations

from torch import Tensor, nn

from fastfcn_pl.core.types import FeatureInfo, UserError
from fastfcn_pl.models.layers import ConvNormAct


class FCNHead(nn.Module):
    """3x3 convolution to `channels`, dropout, classifier: levels to logits `(B, num_classes, H/s, W/s)`.

    `level` is the index of the level that it reads: -1 for the neck's map, -2 for C4 as the auxiliary head.
    Faithful to `FCNHead` in the official `fcn.py`.
    """

    def __init__(
        self,
        in_info: FeatureInfo,
        num_classes: int,
        align_corners: bool,
        *,
        level: int,
        channels: int,
        dropout: float,
    ) -> None:
        super().__init__()
        if not -len(in_info) <= level < len(in_info):
            raise UserError(f"level {level} does not exist among {len(in_info)} levels: use {-len(in_info)} to -1")
        self.level = level
        self.layers = nn.Sequential(
            ConvNormAct(in_info.channels[level], channels),
            nn.Dropout2d(dropout),
            nn.Conv2d(channels, num_classes, 1),
        )

    def forward(self, levels: list[Tensor]) -> Tensor:
        return self.layers(levels[self.level])
