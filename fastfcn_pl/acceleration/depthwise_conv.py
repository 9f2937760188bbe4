"""Dilated depthwise convolutions computed by `ops.depthwise_conv`, in the places of torch's own."""

from __future__ import annotations

from torch import Tensor, nn

from fastfcn_pl.acceleration.known_modules import is_plain_convolution, is_untouched
from fastfcn_pl.ops.depthwise_conv import depthwise_conv


class DepthwiseConv(nn.Conv2d):
    """A dilated depthwise convolution that keeps the size; it has exactly the state of torch's own."""

    def forward(self, x: Tensor) -> Tensor:
        return depthwise_conv(x, self.weight, self.bias, self.dilation[0])


def use_fast_depthwise(network: nn.Module) -> None:
    """Give dilated depthwise convolutions of torch's the class of ours; everything else about them stays."""
    for module in network.modules():
        if is_plain_convolution(module) and is_untouched(module) and _is_dilated_depthwise(module):
            module.__class__ = DepthwiseConv


def use_plain_depthwise(network: nn.Module) -> None:
    """Undo `use_fast_depthwise`."""
    for module in network.modules():
        if type(module) is DepthwiseConv:
            module.__class__ = nn.Conv2d  # type: ignore[assignment]


def _is_dilated_depthwise(conv: nn.Conv2d) -> bool:
    kernel, dilation = conv.kernel_size[0], conv.dilation[0]
    square = conv.kernel_size == (kernel,) * 2 and conv.dilation == (dilation,) * 2 and kernel % 2 == 1
    keeps_size = square and conv.stride == (1, 1) and conv.padding == (dilation * (kernel // 2),) * 2
    return keeps_size and dilation > 1 and conv.groups == conv.in_channels == conv.out_channels
