"""Requirements of necks that join C3, C4 and C5."""

from __future__ import annotations

from fastfcn_pl.core.types import FeatureInfo, UserError


def three_levels(in_info: FeatureInfo, neck: str) -> FeatureInfo:
    """Return the description of the last three levels; raises UserError if their strides do not grow.

    All three may have stride 8 on a dilated backbone, as in the official code (`--jpu JPU --dilated`).
    """
    strides = in_info.strides[-3:]
    if len(strides) < 3 or list(strides) != sorted(strides) or 8 < strides[0] == strides[2]:
        raise UserError(
            f"{neck} joins three levels of growing stride, but the backbone gives strides {in_info.strides}: "
            "use a pyramid at output_stride=32 (a ResNet, ConvNeXt, EfficientNet, Swin), or model/neck=none"
        )
    return FeatureInfo(in_info.channels[-3:], strides)
