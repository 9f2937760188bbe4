"""Feature Pyramid Network (arXiv 1612.03144), as a neck instead of JPU."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

from torch import Tensor, nn

from fastfcn_pl.core.types import FeatureInfo
from fastfcn_pl.models.layers import ConvNormAct
from fastfcn_pl.models.necks.levels import joined_levels, three_levels
from fastfcn_pl.models.necks.upsamplers.interpolation import Bilinear


class FPN(nn.Module):
    """C3, C4, C5 brought to `width` by 1x1 convolutions, added from the top down, smoothed: `(B, width, H/8, W/8)`.

    With `output_level` 2, C2 is added last and the map has stride 4. The sum of the coarser levels is enlarged by one
    `upsampler(width, align_corners, ratio of the strides)` for each step, called as `upsampler(coarse, lateral)`.
    """

    def __init__(
        self,
        in_info: FeatureInfo,
        align_corners: bool,
        *,
        width: int,
        upsampler: Callable[[int, bool, int], nn.Module] = Bilinear,  # missing in checkpoints of earlier versions
        output_level: int = 3,  # also
    ) -> None:
        super().__init__()
        # Level 3 may also be the one stride of a dilated backbone.
        joined = three_levels(in_info, "FPN") if output_level == 3 else joined_levels(in_info, "FPN", output_level)
        self.laterals = nn.ModuleList(nn.Conv2d(channels, width, 1) for channels in joined.channels)
        ratios = [coarse // fine for fine, coarse in pairwise(joined.strides)]
        self.upsamplers = nn.ModuleList(upsampler(width, align_corners, ratio) for ratio in reversed(ratios))
        self.smooth = ConvNormAct(width, width)
        self.out_info = in_info.append(width, joined.strides[0])

    def forward(self, levels: list[Tensor]) -> list[Tensor]:
        inputs = zip(self.laterals, levels[-len(self.laterals) :], strict=True)
        *laterals, coarse = (lateral(level) for lateral, level in inputs)
        for upsampler, lateral in zip(self.upsamplers, reversed(laterals), strict=True):
            coarse = lateral + upsampler(coarse, lateral)
        return [*levels, self.smooth(coarse)]
