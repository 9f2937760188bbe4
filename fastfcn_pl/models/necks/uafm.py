"""PP-LiteSeg's decoder and its Unified Attention Fusion Module (arXiv 2204.02681)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from fastfcn_pl.core.types import FeatureInfo, UserError
from fastfcn_pl.models.layers import ConvNormAct, PooledMaps, initialize_convs, leaky_relu
from fastfcn_pl.models.necks.levels import joined_levels
from fastfcn_pl.models.requirements import check_bins, check_choice
from fastfcn_pl.ops.interpolate import resize


class SpatialAttention(nn.Module):
    """Weight of each pixel from the mean, and with `max_pool` the maximum, over channels: `(B, 1, H, W)` in (0, 1)."""

    def __init__(self, max_pool: bool) -> None:
        super().__init__()
        self.max_pool = max_pool
        statistics = 4 if max_pool else 2
        self.layers = nn.Sequential(
            *ConvNormAct(statistics, 2), nn.Conv2d(2, 1, 3, padding=1, bias=False), nn.BatchNorm2d(1), nn.Sigmoid()
        )

    def forward(self, low: Tensor, high: Tensor) -> Tensor:
        statistics = []
        for x in (low, high):
            statistics.append(x.mean(1, keepdim=True))
            if self.max_pool:
                statistics.append(x.amax(1, keepdim=True))
        return self.layers(torch.cat(statistics, dim=1))


class ChannelAttention(nn.Module):
    """Weight of each channel from the mean, and with `max_pool` the maximum, over pixels: `(B, C, 1, 1)` in (0, 1)."""

    def __init__(self, channels: int, max_pool: bool) -> None:
        super().__init__()
        self.max_pool = max_pool
        statistics, hidden = (4 if max_pool else 2) * channels, max(channels // 2, 1)
        self.layers = nn.Sequential(
            *ConvNormAct(statistics, hidden, 1, activation=leaky_relu),
            nn.Conv2d(hidden, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
            nn.Sigmoid(),
        )

    def forward(self, low: Tensor, high: Tensor) -> Tensor:
        statistics = [x.mean((2, 3), keepdim=True) for x in (low, high)]
        if self.max_pool:
            statistics += [x.amax((2, 3), keepdim=True) for x in (low, high)]
        return self.layers(torch.cat(statistics, dim=1))


class UAFM(nn.Module):
    """Fusion of a fine map `low` and a coarse map `high` (section 3.2): `(B, out_channels, H, W)` at the fine size.

    A sigmoid weights `low`, and one minus it the resized `high`; without `attention` they are added. Resizing is with
    align_corners=False, as published.
    """

    def __init__(
        self, low_channels: int, high_channels: int, out_channels: int, *, attention: str, max_pool: bool
    ) -> None:
        super().__init__()
        check_choice("model.neck.attention", attention, ("spatial", "channel", "none"))
        self.conv_low = ConvNormAct(low_channels, high_channels)
        self.attention: nn.Module | None = None
        if attention == "spatial":
            self.attention = SpatialAttention(max_pool)
        elif attention == "channel":
            self.attention = ChannelAttention(high_channels, max_pool)
        self.conv_out = ConvNormAct(high_channels, out_channels)

    def forward(self, low: Tensor, high: Tensor) -> Tensor:
        low = self.conv_low(low)
        high = resize(high, low.shape[-2:], False)
        if self.attention is None:
            return self.conv_out(low + high)
        weight = self.attention(low, high)
        return self.conv_out(low * weight + high * (1 - weight))


class SimplePyramidPooling(PooledMaps):
    """Sum of the average pools of `bins` cells a side, convolved (section 3.3): `(B, channels, H, W)`."""

    def __init__(self, in_channels: int, channels: int, bins: Sequence[int]) -> None:
        check_bins("model.neck.bins", bins, least=1)
        super().__init__(bins, lambda: [ConvNormAct(in_channels, channels, 1, bias=True)], align_corners=False)
        self.conv_out = ConvNormAct(channels, channels, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv_out(torch.stack(self.pooled(x)).sum(0))


class PPLiteSegDecoder(nn.Module):
    """Context of C5, fused with C5 and then with each finer level by a UAFM: `(B, C, H/s, W/s)`.

    The map of C5 has `shares[0] * width` channels, that of C4 `shares[1] * width`, and so on. Faithful to
    `PPLiteSegHead` of PaddleSeg, of which it returns the finest map; weights are initialized as Paddle does. Batch
    norms keep the unbiased variance, as everywhere in torch, and not Paddle's biased one. Raises UserError if `shares`
    are fewer than the levels, or if one of them rounds to no channel.
    """

    def __init__(
        self,
        in_info: FeatureInfo,
        align_corners: bool,
        *,
        width: int,
        shares: Sequence[float],
        bins: Sequence[int],
        attention: str,
        max_pool: bool,
        output_level: int,
    ) -> None:
        super().__init__()
        joined = joined_levels(in_info, "PP-LiteSeg's decoder", output_level)
        if len(shares) < len(joined.channels):
            raise UserError(
                f"model.neck.shares={list(shares)}: output_level={output_level} needs one for each of "
                f"{len(joined.channels)} levels, C5 first"
            )
        widths = [width, *(round(share * width) for share in shares[: len(joined.channels)])]
        if min(widths) < 1:
            raise UserError(
                f"model.neck.width={width} with model.neck.shares={list(shares)} gives maps of {widths[1:]} channels, "
                "C5's first: each needs one at least"
            )
        self.context = SimplePyramidPooling(joined.channels[-1], width, bins)
        self.fusions = nn.ModuleList(
            UAFM(channels, widths[i], widths[i + 1], attention=attention, max_pool=max_pool)
            for i, channels in enumerate(reversed(joined.channels))
        )
        initialize_convs(self, partial(nn.init.kaiming_normal_, nonlinearity="relu"))
        self.out_info = in_info.append(widths[-1], joined.strides[0])

    def fused_maps(self, levels: list[Tensor]) -> list[Tensor]:
        """Return the maps of all levels, C5's first."""
        maps = [self.context(levels[-1])]
        for fuse, level in zip(self.fusions, reversed(levels), strict=False):
            maps.append(fuse(level, maps[-1]))
        return maps[1:]

    def forward(self, levels: list[Tensor]) -> list[Tensor]:
        return [*levels, self.fused_maps(levels)[-1]]
