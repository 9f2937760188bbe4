"""Simple feature pyramid (ViTDet, section 3): levels of four strides from maps of one stride."""

from __future__ import annotations

from collections.abc import Sequence

from timm.layers import LayerNorm2d
from torch import Tensor, nn

STRIDES = (4, 8, 16, 32)


class SimpleFeaturePyramid(nn.Module):
    """Turn maps of one stride into levels `(B, width, ...)` at strides 4, 8, 16 and 32, level `i` from map `i`.

    Deconvolutions double the size of a map and halve its channels; max pooling halves the size. A 1x1 and a 3x3
    convolution follow, each with a layer norm over channels. Faithful to `SimpleFeaturePyramid` of detectron2 for maps
    at stride 16. Those at stride 4, 8 or 32 take one step less or more for each factor of two.
    """

    def __init__(self, channels: Sequence[int], stride: int, width: int) -> None:
        super().__init__()
        self.levels = nn.ModuleList(
            _level(level_channels, stride, level_stride, width)
            for level_channels, level_stride in zip(channels, STRIDES, strict=True)
        )

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        return [level(x) for level, x in zip(self.levels, maps, strict=True)]


def _level(channels: int, stride: int, level_stride: int, width: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    while stride > level_stride:
        if layers:
            layers += [LayerNorm2d(channels), nn.GELU()]
        layers.append(nn.ConvTranspose2d(channels, channels // 2, 2, stride=2))
        stride, channels = stride // 2, channels // 2
    while stride < level_stride:
        layers.append(nn.MaxPool2d(2))
        stride *= 2
    return nn.Sequential(
        *layers,
        nn.Conv2d(channels, width, 1, bias=False),
        LayerNorm2d(width),
        nn.Conv2d(width, width, 3, padding=1, bias=False),
        LayerNorm2d(width),
    )
