"""Requirements of necks that join levels of a pyramid."""

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
            "use a pyramid at output_stride=32 (a ResNet, ConvNeXt, EfficientNet, Swin; a plain ViT "
            "by model/backbone=vit_pyramid), or model/neck=none"
        )
    return FeatureInfo(in_info.channels[-3:], strides)


def joined_levels(in_info: FeatureInfo, neck: str, output_level: int) -> FeatureInfo:
    """Return the description of C2..C5 for `output_level` 2, of C3..C5 for 3: the neck's own map has the first's size.

    Level Ck has stride 2^k. Raises UserError if `output_level` is another, or if the levels' strides do not double.
    """
    if output_level not in (2, 3):
        raise UserError(f"model.neck.output_level={output_level}: use 3 (a map at stride 8) or 2 (stride 4)")
    expected = tuple(2**level for level in range(output_level, 6))
    if in_info.strides[-len(expected) :] != expected:
        raise UserError(
            f"{neck} with output_level={output_level} joins levels of strides {expected}, but the backbone gives "
            f"{in_info.strides}: use a pyramid at output_stride=32 (a ResNet, ConvNeXt, EfficientNet, Swin; "
            "a plain ViT by model/backbone=vit_pyramid), or model/neck=none"
        )
    return FeatureInfo(in_info.channels[-len(expected) :], expected)
