"""Layers that necks and heads are made of."""

from __future__ import annotations

from torch import Tensor, nn

from fastfcn_pl.acceleration.cpu.blockwise_separable_conv import separable_conv
from fastfcn_pl.acceleration.cpu.recompute_norm_relu import LeanReLU
from fastfcn_pl.ops.depthwise_conv import DepthwiseConv


class ConvNormAct(nn.Sequential):
    """Convolution without bias, batch norm, ReLU; `(B, C, H, W)` to `(B, out_channels, H, W)`."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 3, dilation: int = 1) -> None:
        padding = dilation * (kernel_size // 2)
        super().__init__(
            nn.Conv2d(in_channels, out_channels, kernel_size, padding=padding, dilation=dilation, bias=False),
            nn.BatchNorm2d(out_channels),
            LeanReLU(),
        )


class SeparableConv(nn.Sequential):
    """Depthwise 3x3 convolution, norm, pointwise convolution, norm, ReLU: a branch of JPU.

    Norms are batch norms, or group norms of `groups` groups where that is given (JPU-X). Faithful to
    `SeparableConv2d` and the norm and ReLU behind it in the official `customize.py`.
    """

    def __init__(self, in_channels: int, out_channels: int, dilation: int, groups: int | None = None) -> None:
        super().__init__(
            DepthwiseConv(in_channels, dilation),
            _norm(in_channels, groups),
            nn.Conv2d(in_channels, out_channels, 1, bias=False),
            _norm(out_channels, groups),
            LeanReLU(),
        )

    def forward(self, x: Tensor) -> Tensor:
        depthwise, norm, pointwise, outer_norm, relu = self
        return relu(outer_norm(separable_conv(x, depthwise, norm, pointwise)))


def _norm(channels: int, groups: int | None) -> nn.Module:
    return nn.BatchNorm2d(channels) if groups is None else nn.GroupNorm(groups, channels)
