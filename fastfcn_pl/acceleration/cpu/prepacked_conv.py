"""Convolutions as CPUs run them: weights laid out for their kernels, activations inside, Winograd's for wide ones."""

from __future__ import annotations

import copy
from typing import Any, TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastfcn_pl.acceleration.cpu import winograd
from fastfcn_pl.acceleration.fold import activations_inside
from fastfcn_pl.acceleration.known_modules import is_plain_convolution, is_untouched
from fastfcn_pl.acceleration.output_uses import Uses
from fastfcn_pl.models.segmenter import Segmenter
from fastfcn_pl.ops.fast_paths import is_enabled

_INSIDE: dict[type[nn.Module], tuple[str, list[float]]] = {
    nn.ReLU: ("relu", []),
    nn.ReLU6: ("hardtanh", [0.0, 6.0]),
    nn.Hardswish: ("hardswish", []),
    nn.SiLU: ("swish", []),
}
"""Activations that oneDNN computes inside of a convolution, by its names, with their parameters."""
_MIN_CHANNELS = 256
"""Winograd's transforms grow with the channels, its products with their square: with fewer channels it does not pay."""
_MIN_SLOW_PADDING = 8
"""Pixels of padding for which oneDNN has no fast depthwise kernels: JPU's of dilation 8 takes a map that is padded."""
_MAX_PRODUCTS = 0.5
"""Share of the plain convolution's products above which Winograd's do not pay: tiles are partly empty then."""


def pack(network: Segmenter, uses: Uses, dtype: torch.dtype | None) -> None:
    """Change `network`, whose batch norms are folded, to run fast on a CPU; it can neither be trained nor moved then.

    Weights are laid out in channels_last. Without `dtype`, which is in float32, wide convolutions may be Winograd's.
    """
    network.to(memory_format=torch.channels_last).requires_grad_(False)
    activations = activations_inside(network, uses, tuple(_INSIDE), _can_pack)
    for module in list(network.modules()):
        if _can_pack(module):
            wide = min(module.in_channels, module.out_channels) >= _MIN_CHANNELS and winograd.can_convolve(module)
            pack_convolution(module, activations.get(module), wide and dtype is None and is_enabled("winograd"))
    for activation in activations.values():
        activation.__class__ = nn.Identity


def _can_pack(module: nn.Module) -> TypeGuard[nn.Conv2d]:
    return is_plain_convolution(module) and is_untouched(module)


def pack_convolution(conv: nn.Conv2d, activation: nn.Module | None, by_winograd: bool) -> None:
    """Give `conv` the class `PackedConv`, with the `activation` inside; everything else about it stays."""
    kernel = winograd.transform_kernel(conv.weight.detach()) if by_winograd else None
    conv.__class__ = PackedConv
    vars(conv).update(_activation=(copy.copy(activation),), _winograd_kernel=kernel, _packed=None)


class PackedConv(nn.Conv2d):
    """A convolution whose weight is stored as oneDNN's kernel reads it, with the activation after it, if any, inside.

    Kernel and layout depend on the input's size, so that the weight is packed at the first input of a size, and kept
    until another comes. It computes in the precision of its weight.
    """

    _activation: tuple[nn.Module | None]  # a tuple: it is none of its modules
    _winograd_kernel: Tensor | None
    _packed: tuple[torch.Size, Tensor] | None

    def forward(self, x: Tensor) -> Tensor:
        if x.is_meta:
            return super().forward(x)
        x = x.to(self.weight.dtype).contiguous(memory_format=torch.channels_last)
        kernel, (activation,), dilation = self._winograd_kernel, self._activation, self.dilation[0]
        height, width = x.shape[-2:]
        if kernel is not None and winograd.share_of_products(height, width, dilation) < _MAX_PRODUCTS:
            out = winograd.convolve(x, kernel, self.bias, dilation)
            return out if activation is None else activation(out)
        padding: Any = self.padding
        if self.groups > 1 and max(padding) >= _MIN_SLOW_PADDING:
            x, padding = F.pad(x, (padding[1], padding[1], padding[0], padding[0])), (0, 0)
        geometry = padding, self.stride, self.dilation, self.groups
        if self._packed is None or self._packed[0] != x.shape:
            weight = self.weight.detach().to_mkldnn()
            self._packed = x.shape, torch.ops.aten.mkldnn_reorder_conv2d_weight(weight, *geometry, x.shape)
        inside = ("none", []) if activation is None else _INSIDE[type(activation)]
        return torch.ops.mkldnn._convolution_pointwise(x, self._packed[1], self.bias, *geometry, *inside, "")

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_packed": None}  # oneDNN's tensors cannot be copied
