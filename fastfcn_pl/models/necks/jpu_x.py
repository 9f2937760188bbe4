"""JPU-X: joint upsampling in two steps, a later variant by the authors."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fastfcn_pl.core.types import FeatureInfo, UserError
from fastfcn_pl.models.layers import ConvNormAct, SeparableConv
from fastfcn_pl.models.necks.levels import three_levels
from fastfcn_pl.ops.interpolate import resize


class JointUpsampling(nn.Module):
    """Join a coarse map with a finer one: `(B, (1 + len(dilations)) * width, h, w)` at the finer one's size.

    The separable convolutions have group norm. Faithful to `JUM` in the official `customize.py`.
    """

    def __init__(
        self,
        low_channels: int,
        high_channels: int,
        align_corners: bool,
        *,
        width: int,
        dilations: Sequence[int],
        groups: int,
    ) -> None:
        super().__init__()
        self.align_corners = align_corners
        self.conv_low, self.conv_high = ConvNormAct(low_channels, width), ConvNormAct(high_channels, width)
        self.branches = nn.ModuleList(SeparableConv(2 * width, width, d, groups) for d in dilations)

    def forward(self, low: Tensor, high: Tensor) -> Tensor:
        fine = self.conv_high(high)
        coarse = resize(self.conv_low(low), fine.shape[-2:], self.align_corners)
        joined = torch.cat([coarse, fine], dim=1)
        return torch.cat([coarse, *(branch(joined) for branch in self.branches)], dim=1)


class JPUX(nn.Module):
    """C4 joined with C3 at half of `width`, then C5 with the result at `width`: `(B, 4 * width, H/8, W/8)`.

    The first step has dilations 1, 2, 4, the second twice those. Faithful to `JPU_X` in the official `customize.py`.
    """

    def __init__(
        self, in_info: FeatureInfo, align_corners: bool, *, width: int, dilations: Sequence[int], groups: int
    ) -> None:
        super().__init__()
        joined = three_levels(in_info, "JPU-X")
        if groups < 1 or width % 2 or (width // 2) % groups:
            raise UserError(
                f"model.neck.width={width}: half of it, the width of the first step, must be a multiple of "
                f"model.neck.groups={groups}"
            )
        c3, c4, c5 = joined.channels
        steps = 1 + len(dilations)
        self.first = JointUpsampling(c4, c3, align_corners, width=width // 2, dilations=dilations, groups=groups)
        self.second = JointUpsampling(
            c5, steps * (width // 2), align_corners, width=width, dilations=[2 * d for d in dilations], groups=groups
        )
        self.out_info = in_info.append(steps * width, joined.strides[0])

    def forward(self, levels: list[Tensor]) -> list[Tensor]:
        c3, c4, c5 = levels[-3:]
        return [*levels, self.second(c5, self.first(c4, c3))]
