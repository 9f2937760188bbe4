"""Any timm network that has a pyramid of features, as a backbone."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from fastfcn_pl.core.types import FeatureInfo, UserError
from fastfcn_pl.models.backbones.timm_network import (
    NOT_BUILT,
    Axes,
    Layout,
    TimmFeatures,
    features_on_meta,
    message_of,
    shapes_on_meta,
)

_STRIDES = (4, 32)
"""The finest and the coarsest stride of a level."""
_PYRAMID = (8, 16, 32)


class TimmBackbone(TimmFeatures):
    """The levels of a timm network at strides 4 to 32: `(B, in_chans, H, W)` normalised floats to a list, finest first.

    `output_stride` 8 or 16 trades the last strides for dilation. Channels and strides are measured by running the
    network once on the meta device. An image of a size that it cannot take is padded at the bottom and right with the
    mean colour. A network that takes squares of one size only sees an image as tiles of it.
    """

    def __init__(
        self,
        *,
        name: str,
        output_stride: int,
        pretrained: bool | str,
        grad_checkpointing: bool = False,  # missing in checkpoints written before this option existed
        drop_path_rate: float = 0.0,  # likewise
        in_chans: int = 3,  # likewise
    ) -> None:
        if output_stride not in _PYRAMID:
            raise UserError(f"model.backbone.output_stride={output_stride}: use 32, 16 or 8")
        super().__init__(
            name, pretrained, grad_checkpointing, drop_path_rate, in_chans, lambda: _find_layout(name, output_stride)
        )
        self.out_info = self._layout.info

    def dilated_twin(self) -> TimmBackbone:
        """Return the same network at stride 8, without weights on the meta device: strides after C3 become dilation."""
        with torch.device("meta"):
            return type(self)(name=self._name, output_stride=8, pretrained=False, in_chans=self.in_chans)


def _find_layout(name: str, output_stride: int) -> Layout:
    """Find options and sizes with which the network has levels at the expected strides; raises UserError if none do."""
    dilation = {} if output_stride == 32 else {"output_stride": output_stride}
    reason = ""
    tiled: Layout | None = None
    # Swin takes other sizes than the one that it was trained at with the latter.
    for extra in ({}, {"strict_img_size": False}):
        options: dict[str, Any] = {**dilation, **extra}
        try:
            net = features_on_meta(name, options)
            features: Any = net.feature_info
            strides = features.reduction()
            if output_stride == _STRIDES[1] and len(strides) > 1 and len(set(strides[-3:])) == 1:
                raise UserError(
                    f"model.backbone.name={name} does not serve: its levels all have stride {strides[-1]}, as those of "
                    f"a plain vision transformer: use model/backbone=vit_pyramid, or {_remedy(output_stride)}"
                )
            if strides[-1] > _STRIDES[1] and set(_PYRAMID) <= set(strides):  # stages after stride 32 are not even built
                kept = [i for i, stride in zip(features.out_indices, strides, strict=True) if stride <= _STRIDES[1]]
                options["out_indices"] = tuple(kept)
                net = features_on_meta(name, options)
        except NOT_BUILT as error:
            reason = reason or _why_not_created(output_stride, error)
            continue
        cfg: Any = net.pretrained_cfg
        side: int = cfg["input_size"][-1]
        for multiple, shape in (
            (1, (97, 129)),
            *((n, (3 * n, 4 * n)) for n in (32, 64, 128)),
            (side, (side, 2 * side)),
        ):
            measured = _measure(net, output_stride, shape)
            if isinstance(measured, tuple):
                return Layout(options, *measured, multiple, tile=None)
        measured = _measure(net, output_stride, (side, side))
        if isinstance(measured, tuple):
            tiled = tiled or Layout(options, *measured, multiple=side, tile=side)
        else:
            reason = reason or measured
    if tiled is not None:
        return tiled
    raise UserError(f"model.backbone.name={name} does not serve: {reason}; {_remedy(output_stride)}")


def _remedy(output_stride: int) -> str:
    examples = "such as resnet50s, convnext_tiny or efficientnet_lite0"
    if output_stride == _STRIDES[1]:
        return f"take a net with levels at strides 8, 16 and 32, {examples}"
    return f"take a net that timm can dilate, {examples}, or another neck than dilated with output_stride=32"


def _why_not_created(output_stride: int, error: Exception) -> str:
    if output_stride != 32:
        return f"timm cannot build it with output_stride={output_stride} ({message_of(error)})"
    return f"timm cannot give its features ({message_of(error)})"


def _measure(
    net: nn.Module, output_stride: int, size: tuple[int, int]
) -> tuple[tuple[int, ...], FeatureInfo, Axes] | str:
    """Return the levels of an image, their description and the order of their axes; or why it has none."""
    strides, channels = net.feature_info.reduction(), net.feature_info.channels()  # type: ignore[union-attr, operator]
    indices = tuple(i for i, stride in enumerate(strides) if stride >= _STRIDES[0])
    expected = [min(stride, output_stride) for stride in _PYRAMID]
    if [strides[i] for i in indices[-3:]] != expected:
        return f"its levels have strides {strides}, but {expected} are needed"
    measured = shapes_on_meta(net, size)
    if isinstance(measured, str):
        return measured
    shapes = [measured[i] for i in indices]
    info = FeatureInfo(tuple(channels[i] for i in indices), tuple(strides[i] for i in indices))
    sizes = [tuple(-(-length // stride) for length in size) for stride in info.strides]
    expected_shapes = [(c, *lengths) for c, lengths in zip(info.channels, sizes, strict=True)]
    if shapes == expected_shapes:
        return indices, info, "NCHW"
    if shapes == [(*lengths, c) for c, *lengths in expected_shapes]:
        return indices, info, "NHWC"
    return (
        f"at {size[0]}x{size[1]} its levels are {shapes}, but those of strides {list(info.strides)} would be "
        f"{expected_shapes}"
    )
