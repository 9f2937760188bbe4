"""Convolution, bias and ReLU as one kernel of cuDNN instead of three."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fastfcn_pl.acceleration.fold import activations_inside
from fastfcn_pl.acceleration.known_modules import is_plain_convolution, is_untouched
from fastfcn_pl.acceleration.output_uses import Uses
from fastfcn_pl.models.segmenter import Segmenter


def fuse_relus(network: Segmenter, uses: Uses) -> None:
    """Change `network`, whose batch norms are folded and which is on a GPU, to compute ReLUs inside of convolutions."""
    relus = activations_inside(network, uses, (nn.ReLU,), _can_fuse)
    for conv in relus:
        conv.__class__ = ConvReLU
    for relu in relus.values():
        relu.__class__ = nn.Identity


def _can_fuse(conv: nn.Conv2d) -> bool:
    known = is_plain_convolution(conv) and is_untouched(conv) and conv.weight.dtype != torch.float64  # not in cuDNN
    return known and conv.groups == 1 and conv.bias is not None


class ConvReLU(nn.Conv2d):
    """`relu(conv(x))` in the precision of the weight."""

    def forward(self, x: Tensor) -> Tensor:
        if not x.is_cuda:
            return super().forward(x).relu_()
        assert not isinstance(self.padding, str)
        geometry = self.stride, self.padding, self.dilation
        return torch.cudnn_convolution_relu(x.to(self.weight.dtype), self.weight, self.bias, *geometry, self.groups)
