"""Layers that necks and heads are made of."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ConvNormAct(nn.Sequential):
    """Convolution without bias, batch norm, ReLU; `(B, C, H, W)` to `(B, out_channels, H, W)`."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 3, dilation: int = 1) -> None:
        padding = dilation * (kernel_size // 2)
        super().__init__(
            nn.Conv2d(in_channels, out_channels, kernel_size, padding=padding, dilation=dilation, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
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
            nn.ReLU(inplace=True),
        )


def _norm(channels: int, groups: int | None) -> nn.Module:
    return nn.BatchNorm2d(channels) if groups is None else nn.GroupNorm(groups, channels)


class DepthwiseConv(nn.Conv2d):
    """Depthwise 3x3 convolution that keeps the size, in whatever memory format computes it right."""

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__(channels, channels, 3, padding=dilation, dilation=dilation, groups=channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        if x.is_cuda or not (torch.is_autocast_enabled("cpu") or x.dtype == torch.bfloat16):
            return super().forward(x)
        # On CPUs, a dilated depthwise convolution in bfloat16 and channels_last has a wrong weight gradient, without
        # a warning (torch 2.14); tests/models/test_layers.py holds it to float32's. The weight's strides count too,
        # and contiguous() does not touch them where a dimension is 1: flattening does.
        return self._conv_forward(x.contiguous(), self.weight.flatten().view(self.weight.shape), self.bias)
