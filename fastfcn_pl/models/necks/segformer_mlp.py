"""SegFormer's all-MLP decoder (arXiv 2105.15203)."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from fastfcn_pl.core.types import FeatureInfo
from fastfcn_pl.models.layers import ConvNormAct, initialize_convs
from fastfcn_pl.models.necks.levels import joined_levels
from fastfcn_pl.ops.interpolate import resize


class SegFormerMLP(nn.Module):
    """A linear layer for each level, and one that fuses them at the finest size (section 3.2): `(B, width, H/s, W/s)`.

    The coarsest level comes first in the concatenation. Maps are resized with align_corners=False, as published.
    Faithful to `SegformerDecodeHead` of transformers without its classifier. Weights are initialized as in the authors'
    code: torch's default for the projections, Kaiming's normal distribution for the fusion.
    """

    def __init__(self, in_info: FeatureInfo, align_corners: bool, *, width: int, output_level: int) -> None:
        super().__init__()
        joined = joined_levels(in_info, "SegFormer's decoder", output_level)
        self.projections = nn.ModuleList(nn.Conv2d(channels, width, 1) for channels in joined.channels)
        self.fuse = ConvNormAct(len(joined.channels) * width, width, 1)
        initialize_convs(self.fuse, partial(nn.init.kaiming_normal_, mode="fan_out", nonlinearity="relu"))
        self.out_info = in_info.append(width, joined.strides[0])

    def forward(self, levels: list[Tensor]) -> list[Tensor]:
        joined = levels[-len(self.projections) :]
        maps = [project(level) for project, level in zip(self.projections, joined, strict=True)]
        resized = [resize(x, maps[0].shape[-2:], False) for x in reversed(maps)]
        return [*levels, self.fuse(torch.cat(resized, dim=1))]
