"""Layers of necks and heads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial

from torch import Tensor, nn

from fastfcn_pl.ops.interpolate import resize

relu = partial(nn.ReLU, inplace=True)
leaky_relu = partial(nn.LeakyReLU, 0.01, inplace=True)


class ConvNormAct(nn.Sequential):
    """Convolution, batch norm, ReLU or another `activation`; `(B, C, H, W)` to `(B, out_channels, H, W)`.

    The convolution has no `bias` by default, since the norm takes away any.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        dilation: int = 1,
        bias: bool = False,
        activation: Callable[[], nn.Module] = relu,
    ) -> None:
        padding = dilation * (kernel_size // 2)
        super().__init__(
            nn.Conv2d(in_channels, out_channels, kernel_size, padding=padding, dilation=dilation, bias=bias),
            nn.BatchNorm2d(out_channels),
            activation(),
        )


class SeparableConv(nn.Sequential):
    """Depthwise 3x3 convolution, norm, pointwise convolution, norm, ReLU: a branch of JPU.

    Norms are batch norms, or group norms if the number of `groups` is given (JPU-X). Faithful to `SeparableConv2d`
    and the norm and ReLU after it in the official `customize.py`.
    """

    def __init__(self, in_channels: int, out_channels: int, dilation: int, groups: int | None = None) -> None:
        norm = "batch" if groups is None else "group"
        super().__init__(
            nn.Conv2d(in_channels, in_channels, 3, 1, dilation, dilation, groups=in_channels, bias=False),
            norm_layer(norm, in_channels, groups),
            nn.Conv2d(in_channels, out_channels, 1, bias=False),
            norm_layer(norm, out_channels, groups),
            nn.ReLU(inplace=True),
        )


class PooledMaps(nn.Module):
    """Average pools of a map with `bins` cells a side, each with its own `layers`, resized to the map's size.

    It is the base of pyramid poolings, which join the maps that `pooled` returns.
    """

    def __init__(self, bins: Sequence[int], layers: Callable[[], Iterable[nn.Module]], align_corners: bool) -> None:
        super().__init__()
        self.align_corners = align_corners
        self.pools = nn.ModuleList(nn.Sequential(nn.AdaptiveAvgPool2d(size), *layers()) for size in bins)

    def pooled(self, x: Tensor) -> list[Tensor]:
        return [resize(pool(x), x.shape[-2:], self.align_corners) for pool in self.pools]


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of each pixel of `(B, C, H, W)`."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def norm_layer(kind: str, channels: int, groups: int | None) -> nn.Module:
    """Return a norm of maps: `batch`, `group` with so many `groups` of channels, `layer` over channels, or `none`."""
    if kind == "group":
        assert groups is not None
        return nn.GroupNorm(groups, channels)
    return {"batch": nn.BatchNorm2d, "layer": ChannelNorm, "none": nn.Identity}[kind](channels)


def initialize_convs(module: nn.Module, draw: Callable[[Tensor], object]) -> None:
    """Fill the weights of all convolutions in `module` by `draw`, which works in place, and their biases with 0."""
    for conv in module.modules():
        if isinstance(conv, nn.Conv2d):
            draw(conv.weight)
            if conv.bias is not None:
                nn.init.zeros_(conv.bias)
