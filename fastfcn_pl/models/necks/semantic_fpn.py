"""Semantic FPN: the segmentation branch of Panoptic FPN (arXiv 1901.02446)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from fastfcn_pl.core.types import FeatureInfo
from fastfcn_pl.models.layers import initialize_convs, norm_layer
from fastfcn_pl.models.necks.levels import joined_levels
from fastfcn_pl.models.requirements import check_choice, check_divides
from fastfcn_pl.ops.interpolate import resize


class FeaturePyramid(nn.Module):
    """Feature Pyramid Network (arXiv 1612.03144): levels to maps of `width` channels at the same sizes.

    Each map is enlarged by its nearest pixels and added to the next finer one, as published.
    """

    def __init__(self, channels: Sequence[int], width: int) -> None:
        super().__init__()
        self.laterals = nn.ModuleList(nn.Conv2d(count, width, 1) for count in channels)
        self.outputs = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in channels)
        initialize_convs(self, partial(nn.init.kaiming_uniform_, a=1))

    def forward(self, levels: list[Tensor]) -> list[Tensor]:
        maps = [lateral(level) for lateral, level in zip(self.laterals, levels, strict=True)]
        for i in reversed(range(len(maps) - 1)):
            maps[i] = maps[i] + F.interpolate(maps[i + 1], maps[i].shape[-2:], mode="nearest")
        return [output(x) for output, x in zip(self.outputs, maps, strict=True)]


class DoublingBranches(nn.Module):
    """Sum of the levels, each doubled in size until it is as large as the first (section 3.1): `(B, width, H, W)`.

    A doubling is a 3x3 convolution, norm, ReLU and bilinear upsampling; the first level has one without upsampling.
    Levels whose sizes do not double exactly are resized to the first's in the end, as in mmsegmentation. All resizing
    is with align_corners=False, as published. Raises UserError if `norm` is unknown or cannot have `groups`.
    """

    def __init__(self, in_channels: int, width: int, levels: int, *, norm: str, groups: int) -> None:
        super().__init__()
        check_choice("model.neck.norm", norm, ("batch", "group", "none"))
        if norm == "group":
            check_divides("model.neck.groups", groups, width)
        self.branches = nn.ModuleList()
        for level in range(levels):
            branch = nn.Sequential()
            for i in range(max(level, 1)):
                branch.append(nn.Conv2d(width if i else in_channels, width, 3, padding=1, bias=norm == "none"))
                if norm != "none":
                    branch.append(norm_layer(norm, width, groups))
                branch.append(nn.ReLU(inplace=True))
                if level:
                    branch.append(nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False))
            self.branches.append(branch)
        initialize_convs(self, partial(nn.init.kaiming_normal_, mode="fan_out", nonlinearity="relu"))

    def forward(self, levels: list[Tensor]) -> Tensor:
        total, *coarser = (branch(level) for branch, level in zip(self.branches, levels, strict=True))
        for x in coarser:
            total = total + resize(x, total.shape[-2:], False)
        return total


class SemanticFPN(nn.Module):
    """FPN, and the sum of its levels after doubling branches: `(B, width, H/s, W/s)`.

    The levels of the FPN have `pyramid_expansion * width` channels. Faithful to `SemSegFPNHead` and `FPN` of detectron2
    (`norm` group or none) and to `FPNHead` of mmsegmentation (`norm` batch), without the classifier; weights are
    initialized as in detectron2.
    """

    def __init__(
        self,
        in_info: FeatureInfo,
        align_corners: bool,
        *,
        width: int,
        pyramid_expansion: int,
        norm: str,
        groups: int,
        output_level: int,
    ) -> None:
        super().__init__()
        joined = joined_levels(in_info, "Semantic FPN", output_level)
        count = len(joined.channels)
        self.pyramid = FeaturePyramid(joined.channels, pyramid_expansion * width)
        self.branches = DoublingBranches(pyramid_expansion * width, width, count, norm=norm, groups=groups)
        self.out_info = in_info.append(width, joined.strides[0])

    def forward(self, levels: list[Tensor]) -> list[Tensor]:
        joined = levels[-len(self.pyramid.laterals) :]
        return [*levels, self.branches(self.pyramid(joined))]
