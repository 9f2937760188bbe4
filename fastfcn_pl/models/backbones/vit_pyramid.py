"""Plain vision transformers of timm as pyramids."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from fastfcn_pl.core.types import FeatureInfo, UserError
from fastfcn_pl.models.backbones.simple_feature_pyramid import STRIDES, SimpleFeaturePyramid
from fastfcn_pl.models.backbones.timm_network import (
    NOT_BUILT,
    Axes,
    Layout,
    TimmFeatures,
    features_on_meta,
    message_of,
    shapes_on_meta,
)

_MULTIPLE = STRIDES[-1]


class ViTPyramid(TimmFeatures):
    """Levels at strides 4, 8, 16 and 32 of a network whose maps all have one stride, by a simple feature pyramid.

    `(B, in_chans, H, W)` normalised floats become four levels of `width` channels. They come from the last block, or
    from `blocks`, counted from 0: one for all levels, or four, one for each level, finest first. The final norm and
    later blocks are left out, as in ViTDet (2203.16527, section 3).

    Images are padded at the bottom and right with the mean colour, and timm resamples position embeddings. A network
    that takes one size only (BEiT, MLP-Mixer) sees an image as tiles with sides of `tile_size` pixels; null is the size
    it was trained at, and for other networks the whole image. Patches whose size is no power of two are resampled to
    the nearest one by timm, 14 pixels to 16 (FlexiViT, 2212.08013, section 3.4), so that strides are exact.
    """

    def __init__(
        self,
        *,
        name: str,
        blocks: Sequence[int] | None,
        width: int,
        tile_size: int | None,
        pretrained: bool | str,
        grad_checkpointing: bool,
        drop_path_rate: float,
        in_chans: int = 3,  # missing in checkpoints written before this option existed
    ) -> None:
        super().__init__(
            name,
            pretrained,
            grad_checkpointing,
            drop_path_rate,
            in_chans,
            lambda: _find_layout(name, blocks, tile_size),
        )
        tokens = self._layout.info
        self.pyramid = SimpleFeaturePyramid(tokens.channels, tokens.strides[0], width)
        self.out_info = FeatureInfo((width,) * len(STRIDES), STRIDES)

    def _pyramid(self, maps: list[Tensor]) -> list[Tensor]:
        return self.pyramid(maps)


def _find_layout(name: str, blocks: Sequence[int] | None, tile_size: int | None) -> Layout:
    """Find options and sizes with which the network has maps at a stride that is a power of two."""
    if tile_size is not None and (tile_size < _MULTIPLE or tile_size % _MULTIPLE):
        raise UserError(f"model.backbone.tile_size={tile_size}: use a multiple of {_MULTIPLE}, or null")
    net = _features(name, {})
    if isinstance(net, str):
        raise UserError(f"model/backbone=vit_pyramid model.backbone.name={name} does not serve: {net}; {_WHAT_WORKS}")
    strides = [block["reduction"] for block in net.feature_info.info]  # type: ignore[union-attr]
    if len(strides) < 3 or len(set(strides[-3:])) > 1:
        pyramid = f"use model/backbone=resnet50 model.backbone.name={name}, or " if {8, 16, 32} <= {*strides} else ""
        raise UserError(
            f"model/backbone=vit_pyramid takes networks whose maps have one stride, but {name} has strides {strides}: "
            f"{pyramid}{_WHAT_WORKS}"
        )
    chosen = _chosen(blocks, strides, name)
    trained_stride = strides[chosen[0]]
    stride = min(max(2 ** round(math.log2(trained_stride)), STRIDES[0]), STRIDES[-1])
    grid = net.pretrained_cfg["input_size"][-1] // trained_stride  # type: ignore[index]
    options: dict[str, Any] = {"out_indices": tuple(sorted(set(chosen)))}
    if stride != trained_stride:
        options |= {"patch_size": stride, "img_size": grid * stride}
    tile = tile_size or math.ceil(grid * stride / _MULTIPLE) * _MULTIPLE
    whole: list[tuple[dict[str, Any], int, int | None]] = [
        ({}, _MULTIPLE, None),
        ({"dynamic_img_size": True}, _MULTIPLE, None),
    ]
    for extra, multiple, side in [*([] if tile_size else whole), ({"img_size": tile}, tile, tile)]:
        layout = _measure(name, options | extra, chosen, stride, multiple, side)
        if isinstance(layout, Layout):
            return layout
    reason = str(layout)
    if stride != trained_stride:
        reason += f", but its own patches of {trained_stride} pixels give none of the strides {list(STRIDES)}"
    raise UserError(f"model/backbone=vit_pyramid model.backbone.name={name} does not serve: {reason}; {_WHAT_WORKS}")


_WHAT_WORKS = "take a vision transformer, such as vit_small_patch16_dinov3 or deit_tiny_patch16_224"


def _chosen(blocks: Sequence[int] | None, strides: list[int], name: str) -> tuple[int, ...]:
    """Return the block of each level."""
    depth = len(strides)
    given = tuple(blocks) if blocks is not None else (depth - 1,)
    if len(given) not in (1, len(STRIDES)) or not all(0 <= block < depth for block in given):
        raise UserError(
            f"model.backbone.blocks={list(given)}: give one block for all levels, or {len(STRIDES)}, of 0 to "
            f"{depth - 1} in {name}; null is the last"
        )
    if len({strides[block] for block in given}) > 1:
        raise UserError(
            f"model.backbone.blocks={list(given)}: they have strides {[strides[block] for block in given]} in {name}, "
            "but one is needed: choose from those at the last stride"
        )
    return given if len(given) > 1 else given * len(STRIDES)


def _measure(
    name: str, options: dict[str, Any], chosen: tuple[int, ...], stride: int, multiple: int, tile: int | None
) -> Layout | str:
    """Return the layout if these options give maps at `stride`, or the reason why they do not."""
    net = _features(name, options)
    if isinstance(net, str):
        return net
    size = (multiple, multiple) if tile else (3 * multiple, 4 * multiple)
    channels = net.feature_info.channels()  # type: ignore[union-attr, operator]
    rows, columns = size[0] // stride, size[1] // stride
    axes: Axes = "NCHW"
    shapes = shapes_on_meta(net, size)
    if isinstance(shapes, str):
        if not hasattr(net, "output_fmt"):
            return shapes
        axes, net.output_fmt = "NLC", "NLC"  # type: ignore[assignment]
        tokens = shapes_on_meta(net, size)  # some networks read the shape of a map from values
        if tokens != [(rows * columns, c) for c in channels]:
            return shapes
    elif shapes != (expected := [(c, rows, columns) for c in channels]):
        return f"at {size[0]}x{size[1]} its maps are {shapes}, but those of stride {stride} would be {expected}"
    indices = tuple(options["out_indices"].index(block) for block in chosen)
    info = FeatureInfo(tuple(channels[i] for i in indices), (stride,) * len(STRIDES))
    return Layout(options, indices, info, axes=axes, multiple=multiple, tile=tile)


def _features(name: str, options: dict[str, Any]) -> nn.Module | str:
    """Return the network on the meta device, or the reason why there is none."""
    try:
        return features_on_meta(name, options)
    except NOT_BUILT as error:
        given = ", ".join(f"{key}={value}" for key, value in options.items() if key != "out_indices")
        reason = "" if "patch_size" in options else f" ({message_of(error)})"
        return f"timm cannot build its features{f' with {given}' if given else ''}{reason}"
