"""FaPN: Feature-aligned Pyramid Network (arXiv 2108.07058)."""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor, nn

from fastfcn_pl.core.types import FeatureInfo
from fastfcn_pl.models.layers import initialize_convs, norm_layer
from fastfcn_pl.models.necks.deform_conv import deform_conv
from fastfcn_pl.models.necks.levels import joined_levels
from fastfcn_pl.models.requirements import check_choice, check_divides
from fastfcn_pl.ops.interpolate import resize

_xavier = partial(nn.init.kaiming_uniform_, a=1)


class FeatureSelection(nn.Module):
    """Feature Selection Module (section 3.3): channels weighted by their global means, as `(B, width, H, W)`."""

    def __init__(self, in_channels: int, width: int) -> None:
        super().__init__()
        self.attention = nn.Conv2d(in_channels, in_channels, 1, bias=False)
        self.select = nn.Conv2d(in_channels, width, 1, bias=False)

    def forward(self, low: Tensor) -> Tensor:
        attention = self.attention(low.mean((2, 3), keepdim=True)).sigmoid()
        return self.select(low + low * attention)


class DeformableConv(nn.Module):
    """3x3 deformable convolution of `x`, displaced and modulated by another map: `(B, C, H, W)`.

    Offsets are 0 and factors 0.5 at initialization.
    """

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels, channels, 3, 3))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.offsets_and_mask = nn.Conv2d(channels, groups * 27, 3, padding=1)
        nn.init.uniform_(self.weight, -1 / math.sqrt(9 * channels), 1 / math.sqrt(9 * channels))
        initialize_convs(self, nn.init.zeros_)

    def forward(self, x: Tensor, source: Tensor) -> Tensor:
        first, second, mask = self.offsets_and_mask(source).chunk(3, 1)
        return deform_conv(x, torch.cat([first, second], 1), mask.sigmoid(), self.weight, self.bias)


class FeatureAlignment(nn.Module):
    """Feature Alignment Module (section 3.2): a coarse map, aligned to a fine one and added: `(B, width, H, W)`.

    Faithful to `FeatureAlign_V2` of the published code; the coarse map is resized with align_corners=False.
    """

    def __init__(self, low_channels: int, width: int, groups: int, norm: nn.Module) -> None:
        super().__init__()
        self.selection = FeatureSelection(low_channels, width)
        self.offset = nn.Conv2d(2 * width, width, 1, bias=False)
        self.norm = norm
        initialize_convs(self, _xavier)
        self.align = DeformableConv(width, groups)

    def forward(self, low: Tensor, high: Tensor) -> Tensor:
        high = resize(high, low.shape[-2:], False)
        selected = self.selection(low)
        source = self.norm(self.offset(torch.cat([selected, 2 * high], 1)))
        return self.align(high, source).relu() + selected


class FaPN(nn.Module):
    """C5 projected to `width` channels and aligned to each finer level in turn: `(B, width, H/s, W/s)`.

    The channels of each of the `groups` share their displacements. Faithful to `FAN` of the published code, whose
    configurations have the `norm` `none` or `group`; only its finest map is returned.
    """

    def __init__(
        self,
        in_info: FeatureInfo,
        align_corners: bool,
        *,
        width: int,
        groups: int,
        norm: str,
        norm_groups: int,
        output_level: int,
    ) -> None:
        super().__init__()
        joined = joined_levels(in_info, "FaPN", output_level)
        check_divides("model.neck.groups", groups, width)
        check_choice("model.neck.norm", norm, ("group", "none"))
        if norm == "group":
            check_divides("model.neck.norm_groups", norm_groups, width)
        make_norm = partial(norm_layer, norm, width, norm_groups)
        *fine, coarse = joined.channels
        has_bias = norm == "none"
        self.top = nn.Sequential(nn.Conv2d(coarse, width, 1, bias=has_bias), make_norm())
        self.alignments = nn.ModuleList(FeatureAlignment(channels, width, groups, make_norm()) for channels in fine)
        self.smooth = nn.Sequential(nn.Conv2d(width, width, 3, padding=1, bias=has_bias), make_norm())
        initialize_convs(self.smooth, _xavier)
        self.out_info = in_info.append(width, joined.strides[0])

    def forward(self, levels: list[Tensor]) -> list[Tensor]:
        *fine, coarse = levels[-len(self.alignments) - 1 :]
        x = self.top(coarse)
        for align, level in reversed(list(zip(self.alignments, fine, strict=True))):
            x = align(level, x)
        return [*levels, self.smooth(x)]
