"""Convolution, bias and ReLU as one kernel of cuDNN, in place of three."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fastfcn_pl.models.convolutions import PointwiseConv
from fastfcn_pl.models.deploy import behind_convolutions
from fastfcn_pl.models.segmenter import Segmenter


def fuse_activations(model: Segmenter) -> None:
    """Change `model`, whose batch norms are folded and which is on a GPU, to compute ReLUs inside of convolutions."""
    behind: dict[nn.Module, nn.Module] = {}
    for relu, convs in behind_convolutions(model, (nn.ReLU,)).items():
        if getattr(relu, "inplace", False) and all(map(_is_plain, convs)):  # else the convolution's output may be used
            behind |= dict.fromkeys(convs, relu)
    inside = set(behind.values())
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if child in inside:
                setattr(parent, name, nn.Identity())
            elif child in behind:
                assert isinstance(child, nn.Conv2d)
                setattr(parent, name, ConvRelu(child))


def _is_plain(conv: nn.Conv2d) -> bool:
    plain = type(conv) in (nn.Conv2d, PointwiseConv) and conv.groups == 1 and conv.bias is not None
    plain &= conv.weight.dtype != torch.float64  # for which cuDNN has no such kernel
    return plain and conv.padding_mode == "zeros" and not isinstance(conv.padding, str)


class ConvRelu(nn.Module):
    """`relu(conv(x))`, in the precision that the weight has."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: Tensor) -> Tensor:
        conv = self.conv
        if not x.is_cuda:
            return conv(x).relu_()
        assert not isinstance(conv.padding, str)
        geometry = conv.stride, conv.padding, conv.dilation
        return torch.cudnn_convolution_relu(x.to(conv.weight.dtype), conv.weight, conv.bias, *geometry, conv.groups)
