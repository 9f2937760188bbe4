"""No neck."""

from __future__ import annotations

from torch import Tensor, nn

from fastfcn_pl.core.types import FeatureInfo


class NoNeck(nn.Module):
    """Pass on the backbone's levels as they are: the head works on the coarsest map."""

    def __init__(self, in_info: FeatureInfo, align_corners: bool) -> None:
        super().__init__()
        self.out_info = in_info

    def forward(self, levels: list[Tensor]) -> list[Tensor]:
        return levels
