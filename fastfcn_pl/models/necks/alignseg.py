"""AlignSeg: feature-aligned segmentation networks (arXiv 2003.00872)."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from fastfcn_pl.core.types import FeatureInfo
from fastfcn_pl.models.layers import ConvNormAct, leaky_relu
from fastfcn_pl.models.necks.levels import joined_levels
from fastfcn_pl.models.necks.warp import divided, in_pixels, warp
from fastfcn_pl.ops.interpolate import resize

_ConvNormAct = partial(ConvNormAct, activation=leaky_relu)
"""The activation is that of the in-place norm that the published code uses."""


class Offsets(nn.Sequential):
    """Offsets `(B, 2, H, W)` of each pixel, predicted from two maps; 0 at initialization."""

    def __init__(self, channels: int) -> None:
        last = nn.Conv2d(channels, 2, 3, padding=1, bias=False)
        super().__init__(*_ConvNormAct(2 * channels, channels, 1), last)
        nn.init.zeros_(last.weight)


def _shifted(x: Tensor, offsets: Tensor, corrected: bool) -> Tensor:
    """Return `x` `(B, C, h, w)` at displaced pixels: `corrected` in pixels of the new grid, else as published."""
    return warp(x, in_pixels(offsets) if corrected else divided(offsets, *x.shape[-2:]), align_corners=corrected)


class FeatureAlignment(nn.Module):
    """Aligned Feature Aggregation (section 3.2): the sum of two maps, both warped, at the fine size: `(B, C, H, W)`."""

    def __init__(self, channels: int, corrected_sampling: bool) -> None:
        super().__init__()
        self.corrected_sampling = corrected_sampling
        self.offsets_high, self.offsets_low = Offsets(channels), Offsets(channels)

    def forward(self, low: Tensor, high: Tensor) -> Tensor:
        high = resize(high, low.shape[-2:], True)
        both = torch.cat([low, high], 1)
        high = _shifted(high, self.offsets_high(both), self.corrected_sampling)
        return high + _shifted(low, self.offsets_low(both), self.corrected_sampling)


class ContextAlignment(nn.Module):
    """Aligned Context Modeling (section 3.3): a map plus its warped 3x3 average pool: `(B, out_channels, H, W)`."""

    def __init__(self, in_channels: int, out_channels: int, corrected_sampling: bool) -> None:
        super().__init__()
        self.corrected_sampling = corrected_sampling
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(3), *self._adapter(in_channels, out_channels))
        self.adapt = nn.Sequential(*self._adapter(in_channels, out_channels))
        self.offsets = Offsets(out_channels)

    @staticmethod
    def _adapter(in_channels: int, out_channels: int) -> list[nn.Module]:
        return [*_ConvNormAct(in_channels, in_channels, 1), *_ConvNormAct(in_channels, out_channels)]

    def forward(self, x: Tensor) -> Tensor:
        pooled, adapted = self.pool(x), self.adapt(x)
        both = torch.cat([adapted, resize(pooled, adapted.shape[-2:], True)], 1)
        return adapted + _shifted(pooled, self.offsets(both), self.corrected_sampling)


class Refinement(nn.Module):
    """1x1 convolution, a residual of two 3x3 convolutions, and a norm: `(B, out_channels, H, W)`."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        hidden = max(out_channels // 4, 1)
        self.unify = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.residual = nn.Sequential(
            *_ConvNormAct(out_channels, hidden), nn.Conv2d(hidden, out_channels, 3, padding=1, bias=False)
        )
        self.norm = nn.Sequential(nn.BatchNorm2d(out_channels), leaky_relu())

    def forward(self, x: Tensor) -> Tensor:
        x = self.unify(x)
        return self.norm(x + self.residual(x))


class AlignSeg(nn.Module):
    """Levels aligned and added from the finest to the coarsest, then the context of C5: `(B, width, H/s, W/s)`.

    All steps run at the finest size, in the order of the published network without its classifier. With
    `corrected_sampling`, offsets are in pixels and 0 moves nothing, as the published file recommends. Without it,
    pixels are sampled as for the published results, and an offset of 0 is a slight zoom. Maps are resized with
    align_corners=True, as published.
    """

    def __init__(
        self, in_info: FeatureInfo, align_corners: bool, *, width: int, corrected_sampling: bool, output_level: int
    ) -> None:
        super().__init__()
        joined = joined_levels(in_info, "AlignSeg", output_level)
        self.context = ContextAlignment(joined.channels[-1], width, corrected_sampling)
        inputs = [*joined.channels, width]
        self.before = nn.ModuleList(Refinement(channels, width) for channels in inputs)
        self.alignments = nn.ModuleList(FeatureAlignment(width, corrected_sampling) for _ in inputs[1:])
        self.after = nn.ModuleList(Refinement(width, width) for _ in inputs[1:])
        self.out_info = in_info.append(width, joined.strides[0])

    def forward(self, levels: list[Tensor]) -> list[Tensor]:
        inputs = [*levels[-len(self.alignments) :], self.context(levels[-1])]
        x, *others = (refine(level) for refine, level in zip(self.before, inputs, strict=True))
        for align, refine, other in zip(self.alignments, self.after, others, strict=True):
            x = refine(align(x, other))
        return [*levels, x]
