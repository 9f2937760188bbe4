"""Pyramid Attention Network (arXiv 1805.10180)."""

from __future__ import annotations

from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from fastfcn_pl.core.types import FeatureInfo
from fastfcn_pl.models.layers import ConvNormAct, initialize_convs
from fastfcn_pl.models.necks.levels import joined_levels
from fastfcn_pl.models.necks.upsamplers.reassembly import fit
from fastfcn_pl.ops.interpolate import resize


class FeaturePyramidAttention(nn.Module):
    """Map weighted by an attention of three scales, plus its global mean (section 3.1): `(B, out_channels, H, W)`.

    The attention has one channel and no sigmoid.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.context = ConvNormAct(in_channels, out_channels, 1, bias=True)
        self.features = ConvNormAct(in_channels, out_channels, 1, bias=True)
        self.at_half = ConvNormAct(in_channels, 1, 7, bias=True)
        self.at_quarter = ConvNormAct(1, 1, 5, bias=True)
        self.at_eighth = nn.Sequential(ConvNormAct(1, 1, bias=True), ConvNormAct(1, 1, bias=True))
        self.merge_half = ConvNormAct(1, 1, 7, bias=True)
        self.merge_quarter = ConvNormAct(1, 1, 5, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        half = self.at_half(halved(x))
        quarter = self.at_quarter(halved(half))
        attention = self.at_eighth(halved(quarter))
        attention = _resized(attention, quarter) + self.merge_quarter(quarter)
        attention = _resized(attention, half) + self.merge_half(half)
        return _resized(attention, x) * self.features(x) + self.context(x.mean((2, 3), keepdim=True))


def halved(x: Tensor) -> Tensor:
    """Return the maximum of each block of 2x2 pixels; a last odd row or column is dropped unless it is the only one."""
    height, width = x.shape[-2:]
    # Written without a comparison, which an export would decide once for all sizes.
    return fit(F.max_pool2d(x, 2, ceil_mode=True), height // 2 + 1 // height, width // 2 + 1 // width)


def _resized(x: Tensor, like: Tensor) -> Tensor:
    """Return `x` at the size of `like`, which may be equal in the image of an export and differ in others."""
    return F.interpolate(x, like.shape[-2:], mode="bilinear", align_corners=True)


class GlobalAttentionUpsample(nn.Module):
    """Resized coarse map plus the fine one, weighted by channel (section 3.2): `(B, width, H, W)` at the fine size.

    The weights come from the global mean of the coarse map.
    """

    def __init__(self, low_channels: int, width: int) -> None:
        super().__init__()
        self.gate = nn.Sequential(nn.Conv2d(width, width, 1), nn.BatchNorm2d(width), nn.Sigmoid())
        self.conv_low = ConvNormAct(low_channels, width, bias=True)

    def forward(self, low: Tensor, high: Tensor) -> Tensor:
        gate = self.gate(high.mean((2, 3), keepdim=True))
        return resize(high, low.shape[-2:], True) + gate * self.conv_low(low)


class PAN(nn.Module):
    """Pyramid attention on C5, and a global attention upsample for each finer level: `(B, width, H/s, W/s)`.

    Maps are resized with align_corners=True, as published. Faithful to `PANDecoder` of segmentation_models.pytorch,
    initialization included. Unlike that one it takes a C5 smaller than 8x8: a side of one pixel is not halved.
    """

    def __init__(self, in_info: FeatureInfo, align_corners: bool, *, width: int, output_level: int) -> None:
        super().__init__()
        joined = joined_levels(in_info, "PAN", output_level)
        *finer, coarsest = joined.channels
        self.attention = FeaturePyramidAttention(coarsest, width)
        self.upsamples = nn.ModuleList(GlobalAttentionUpsample(channels, width) for channels in reversed(finer))
        initialize_convs(self, partial(nn.init.kaiming_uniform_, nonlinearity="relu"))
        self.out_info = in_info.append(width, joined.strides[0])

    def forward(self, levels: list[Tensor]) -> list[Tensor]:
        *finer, coarsest = levels
        x = self.attention(coarsest)
        for upsample, level in zip(self.upsamples, reversed(finer), strict=False):
            x = upsample(level, x)
        return [*levels, x]
