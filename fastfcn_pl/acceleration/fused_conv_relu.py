"""Convolution, bias and ReLU as one kernel of cuDNN, in place of three."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fastfcn_pl.acceleration.cpu.cpu_convs import is_plain
from fastfcn_pl.acceleration.fold import activations_inside
from fastfcn_pl.acceleration.known_modules import LeftOut, StandIn, is_untouched
from fastfcn_pl.acceleration.output_uses import Uses
from fastfcn_pl.models.segmenter import Segmenter


def fuse_activations(network: Segmenter, uses: Uses) -> None:
    """Change `network`, whose batch norms are folded and which is on a GPU, to compute ReLUs inside of convolutions."""
    behind = activations_inside(network, uses, (nn.ReLU,), _can)
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.Conv2d) and child in behind:
                setattr(parent, name, ConvRelu(child))
    for activation in behind.values():
        activation.__class__ = LeftOut


def _can(conv: nn.Conv2d) -> bool:
    weight = conv._parameters.get("weight")
    known = type(weight) is nn.Parameter and weight.dtype != torch.float64  # for which cuDNN has no such kernel
    return known and is_plain(conv) and is_untouched(conv) and conv.groups == 1 and conv.bias is not None


class ConvRelu(StandIn):
    """`relu(conv(x))`, in the precision that the weight has."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__(conv)
        self.conv = conv

    def forward(self, x: Tensor) -> Tensor:
        conv = self.conv
        if not x.is_cuda:
            return conv(x).relu_()
        assert not isinstance(conv.padding, str)
        geometry = conv.stride, conv.padding, conv.dilation
        return torch.cudnn_convolution_relu(x.to(conv.weight.dtype), conv.weight, conv.bias, *geometry, conv.groups)
