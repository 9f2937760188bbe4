"""Layers of necks and heads."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn


class ConvNormAct(nn.Sequential):
    """Convolution, batch norm, ReLU; `(B, C, H, W)` to `(B, out_channels, H, W)`.

    The convolution has no `bias` by default, since the norm takes away any.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int = 3, dilation: int = 1, bias: bool = False
    ) -> None:
        padding = dilation * (kernel_size // 2)
        super().__init__(
            nn.Conv2d(in_channels, out_channels, kernel_size, padding=padding, dilation=dilation, bias=bias),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
        )


class SeparableConv(nn.Sequential):
    """Depthwise 3x3 convolution, norm, pointwise convolution, norm, ReLU: a branch of JPU.

    Norms are batch norms, or group norms if the number of `groups` is given (JPU-X). Faithful to `SeparableConv2d`
    and the norm and ReLU after it in the official `customize.py`.
    """

    def __init__(self, in_channels: int, out_channels: int, dilation: int, groups: int | None = None) -> None:
        super().__init__(
            nn.Conv2d(in_channels, in_channels, 3, 1, dilation, dilation, groups=in_channels, bias=False),
            _norm(in_channels, groups),
            nn.Conv2d(in_channels, out_channels, 1, bias=False),
            _norm(out_channels, groups),
            nn.ReLU(inplace=True),
        )


def _norm(channels: int, groups: int | None) -> nn.Module:
    return nn.BatchNorm2d(channels) if groups is None else nn.GroupNorm(groups, channels)


def initialize_convs(module: nn.Module, draw: Callable[[Tensor], object]) -> None:
    """Fill the weights of all convolutions in `module` by `draw`, which works in place, and their biases with 0."""
    for conv in module.modules():
        if isinstance(conv, nn.Conv2d):
            draw(conv.weight)
            if conv.bias is not None:
                nn.init.zeros_(conv.bias)
