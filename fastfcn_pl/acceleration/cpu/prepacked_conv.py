"""The network as CPUs run it: weights laid out for their kernels, activations inside of convolutions, Winograd's."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn

from fastfcn_pl.acceleration.cpu.cpu_convs import is_plain
from fastfcn_pl.acceleration.cpu.winograd import WinogradConv
from fastfcn_pl.acceleration.fold import activations_inside, folded
from fastfcn_pl.acceleration.known_modules import LeftOut, StandIn, is_untouched
from fastfcn_pl.acceleration.output_uses import Uses
from fastfcn_pl.acceleration.probe import accelerated, copied
from fastfcn_pl.models.segmenter import Segmenter
from fastfcn_pl.ops.space_to_batch import in_phases

_INSIDE: dict[type[nn.Module], tuple[str, list[float]]] = {
    nn.ReLU: ("relu", []),
    nn.ReLU6: ("hardtanh", [0.0, 6.0]),
    nn.Hardswish: ("hardswish", []),
    nn.SiLU: ("swish", []),
}
"""Activations that oneDNN computes inside of a convolution, by its names, with their parameters."""
_LEAST_CHANNELS = 256
"""Winograd's transforms grow with the channels, its products with their square: with fewer it does not pay."""
_MOST_PRODUCTS = 0.5
"""Of the plain convolution's, above which it does not pay either: where dilation leaves parts of tiles empty."""


def packed(model: Segmenter, winograd: bool = True) -> Segmenter:
    """Return a copy of `model` that gives the same logits on a CPU in less time; it can neither be trained nor moved.

    It is what `deploy.deployed` makes of it, in channels_last, with each dense convolution run the fastest way; with
    `winograd` that may be Winograd's, which is for float32. A network that this changes is copied as it is.
    """
    network = accelerated(model, lambda network, uses: pack(folded(network, uses), uses, winograd))
    return copied(model).eval() if network is None else network


def pack(network: Segmenter, uses: Uses, winograd: bool) -> Segmenter:
    """Change `network`, whose batch norms are folded, to what `packed` returns, and return it."""
    network = network.to(memory_format=torch.channels_last).requires_grad_(False)
    behind = activations_inside(network, uses, tuple(_INSIDE), _can)
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if _can(child):
                setattr(parent, name, _fast(child, winograd)(child, copy.copy(behind.get(child))))
    for activation in behind.values():
        activation.__class__ = LeftOut
    return network


def _can(module: nn.Module) -> TypeGuard[nn.Conv2d]:
    return is_plain(module) and is_untouched(module) and type(module._parameters.get("weight")) is nn.Parameter


def _fast(conv: nn.Conv2d, winograd: bool) -> Callable[[nn.Conv2d, nn.Module | None], nn.Module]:
    if winograd and min(conv.in_channels, conv.out_channels) >= _LEAST_CHANNELS and WinogradConv.can(conv):
        return PackedWideConv
    return PhasedConv if not winograd and PhasedConv.can(conv) else PackedConv


class PackedConv(StandIn):
    """A convolution whose weight is stored as oneDNN's kernel reads it, with the activation behind it inside, if any.

    Kernel and layout depend on the input's size, so that the weight is packed at the first input of a size, and kept
    until another comes. In a layout for another size some convolutions take ten times as long. It computes in the
    precision that the weight has.
    """

    def __init__(self, conv: nn.Conv2d, activation: nn.Module | None) -> None:
        super().__init__(conv)
        self.conv = conv
        self.geometry: tuple[Any, ...] = conv.padding, conv.stride, conv.dilation, conv.groups
        self.inside = ("none", []) if activation is None else _INSIDE[type(activation)]
        self._packed: tuple[torch.Size, Tensor] | None = None

    def forward(self, x: Tensor) -> Tensor:
        if x.is_meta:
            return self.conv(x)
        x = x.to(self.conv.weight.dtype).contiguous(memory_format=torch.channels_last)
        if self._packed is None or self._packed[0] != x.shape:
            weight = self.conv.weight.detach().to_mkldnn()
            packed = torch.ops.aten.mkldnn_reorder_conv2d_weight(weight, *self.geometry, x.shape)
            self._packed = x.shape, packed
        options = self._packed[1], self.conv.bias, *self.geometry, *self.inside, ""
        return torch.ops.mkldnn._convolution_pointwise(x, *options)

    def __deepcopy__(self, memo: dict[int, Any]) -> PackedConv:
        copied = PackedConv(copy.deepcopy(self.conv, memo), None)
        copied.inside = self.inside  # what is packed is not copied: oneDNN's tensors cannot be
        return copied


class PhasedConv(StandIn):
    """A dilated convolution that keeps the size, by phases: for bfloat16, whose kernels know no dilation.

    Of 2048 to 512 channels of 64x64 and dilation 12, 24, 36 it takes 89, 216, 553 ms in place of 461, 797, 1373 (2
    threads of a Xeon with AMX).
    """

    def __init__(self, conv: nn.Conv2d, activation: nn.Module | None) -> None:
        super().__init__(conv)
        self.dilation, undilated = conv.dilation[0], copy.copy(conv)
        undilated.dilation, undilated.padding = (1, 1), (conv.kernel_size[0] // 2,) * 2
        self.packed = PackedConv(undilated, activation)

    @staticmethod
    def can(conv: nn.Conv2d) -> bool:
        """Tell whether `conv` is a convolution that this one can stand for."""
        dilation, kernel = conv.dilation[0], conv.kernel_size[0]
        square = conv.dilation == (dilation,) * 2 and conv.kernel_size == (kernel,) * 2 and kernel % 2 == 1
        return dilation > 1 and square and conv.stride == (1, 1) and conv.padding == (dilation * (kernel // 2),) * 2

    def forward(self, x: Tensor) -> Tensor:
        if x.is_meta:
            return self.packed(x)
        return in_phases(x, self.dilation, lambda x: self.packed(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))


class PackedWideConv(StandIn):
    """A 3x3 convolution of many channels, which computes as its input's size makes it faster."""

    def __init__(self, conv: nn.Conv2d, activation: nn.Module | None) -> None:
        super().__init__(conv)
        self.winograd = WinogradConv(conv, activation)
        self.plain = PackedConv(conv, activation)

    def forward(self, x: Tensor) -> Tensor:
        pays = not x.is_meta and self.winograd.products(*x.shape[-2:]) < _MOST_PRODUCTS
        return self.winograd(x) if pays else self.plain(x)
