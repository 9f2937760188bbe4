"""SFNet: semantic flow for scene parsing (arXiv 2002.10120), with the gates of SFNet-Lite (arXiv 2207.04415)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fastfcn_pl.core.types import FeatureInfo
from fastfcn_pl.models.layers import ConvNormAct, PooledMaps
from fastfcn_pl.models.necks.levels import joined_levels
from fastfcn_pl.models.necks.warp import divided, warp
from fastfcn_pl.models.requirements import check_bins, check_choice
from fastfcn_pl.ops.interpolate import resize


class FlowAlignment(nn.Module):
    """Flow Alignment Module (SFNet, section 3.2): a coarse map is warped to a fine one by a predicted flow.

    A flow of 1 is half a pixel of the fine grid, as in the published code. A flow of 0 gives bilinear interpolation
    with align_corners=True. The maps have equal channels; `forward` adds the warped map to `low`: `(B, C, H, W)`.
    """

    flows = 1

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.compress_high = nn.Conv2d(channels, hidden, 1, bias=False)
        self.compress_low = nn.Conv2d(channels, hidden, 1, bias=False)
        self.flow = nn.Conv2d(2 * hidden, 2 * self.flows, 3, padding=1, bias=False)

    def compressed(self, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """Return the compressed maps `(B, hidden, H, W)`, the coarse one resized to the fine one."""
        return self.compress_low(low), resize(self.compress_high(high), low.shape[-2:], True)

    def warped(self, low: Tensor, high: Tensor) -> Tensor:
        """Return `high` at the size of `low`."""
        small_low, small_high = self.compressed(low, high)
        return _moved(high, self.flow(torch.cat([small_high, small_low], 1)))

    def forward(self, low: Tensor, high: Tensor) -> Tensor:
        return low + self.warped(low, high)


class GatedDualFlowAlignment(FlowAlignment):
    """Gated dual flow alignment (SFNet-Lite, section 3.3): both maps are warped, and mixed by a gate: `(B, C, H, W)`.

    The gate is predicted from the compressed maps or, if `pooled`, from means and maxima over channels.
    """

    flows = 2

    def __init__(self, channels: int, hidden: int, pooled: bool) -> None:
        super().__init__(channels, hidden)
        self.pooled = pooled
        self.gate = nn.Conv2d(4 if pooled else 2 * hidden, 1, 3, padding=1, bias=False)

    def forward(self, low: Tensor, high: Tensor) -> Tensor:
        small_low, small_high = self.compressed(low, high)
        both = torch.cat([small_high, small_low], 1)
        flow_high, flow_low = self.flow(both).chunk(2, 1)
        if self.pooled:  # the fine map as it is: the published code compresses only the other one
            maps = (small_high, low)
            both = torch.cat([*(x.mean(1, True) for x in maps), *(x.amax(1, True) for x in maps)], 1)
        gate = self.gate(both).sigmoid()
        return gate * _moved(high, flow_high) + (1 - gate) * _moved(low, flow_low)


class BilinearAlignment(nn.Module):
    """Sum of a fine map and a resized coarse one, without flow: `(B, C, H, W)`."""

    def forward(self, low: Tensor, high: Tensor) -> Tensor:
        return low + resize(high, low.shape[-2:], True)


def _moved(x: Tensor, flow: Tensor) -> Tensor:
    return warp(x, divided(flow, *flow.shape[-2:]), True)


def _alignment(name: str, channels: int) -> nn.Module:
    check_choice("model.neck.alignment", name, ("flow", "gated", "pooled", "bilinear"))
    hidden = max(channels // 2, 1)
    if name == "flow":
        return FlowAlignment(channels, hidden)
    return BilinearAlignment() if name == "bilinear" else GatedDualFlowAlignment(channels, hidden, name == "pooled")


class LinearPyramidPooling(PooledMaps):
    """Pyramid pooling whose pools have no activation, fused to `(B, width, H, W)`."""

    def __init__(self, in_channels: int, width: int, bins: Sequence[int]) -> None:
        check_bins("model.neck.bins", bins)
        super().__init__(bins, lambda: [nn.Conv2d(in_channels, width, 1, bias=False), nn.BatchNorm2d(width)], True)
        self.fuse = ConvNormAct(in_channels + len(bins) * width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.fuse(torch.cat([*self.pooled(x), x], 1))


class SFNet(nn.Module):
    """Pyramid pooling on C5, and finer levels joined by flow alignment (section 3.3): `(B, width, H/s, W/s)`.

    Each joined map is smoothed, and all of them are fused at the finest size. `alignment` is
    `flow` (SFNet), `gated` or `pooled` (SFNet-Lite's gates), or `bilinear`, its baseline. Maps are resized with
    align_corners=True, as published. Faithful to `UperNetAlignHead` of SFSegNets without its classifier.
    """

    def __init__(
        self,
        in_info: FeatureInfo,
        align_corners: bool,
        *,
        width: int,
        bins: Sequence[int],
        dropout: float,
        alignment: str,
        output_level: int,
    ) -> None:
        super().__init__()
        joined = joined_levels(in_info, "SFNet's decoder", output_level)
        *fine, coarse = joined.channels
        self.context = nn.Sequential(LinearPyramidPooling(coarse, width, bins), nn.Dropout2d(dropout))
        self.laterals = nn.ModuleList(ConvNormAct(channels, width, 1, bias=True) for channels in fine)
        self.alignments = nn.ModuleList(_alignment(alignment, width) for _ in fine)
        self.smooth = nn.ModuleList(ConvNormAct(width, width) for _ in fine)
        self.fuse = ConvNormAct(len(joined.channels) * width, width)
        self.out_info = in_info.append(width, joined.strides[0])

    def forward(self, levels: list[Tensor]) -> list[Tensor]:
        *fine, coarse = levels[-len(self.laterals) - 1 :]
        x = self.context(coarse)
        maps = [x]
        parts = zip(self.laterals, self.alignments, self.smooth, fine, strict=True)
        for lateral, align, smooth, level in reversed(list(parts)):
            x = align(lateral(level), x)
            maps.append(smooth(x))
        size = maps[-1].shape[-2:]
        return [*levels, self.fuse(torch.cat([resize(x, size, True) for x in reversed(maps)], 1))]
