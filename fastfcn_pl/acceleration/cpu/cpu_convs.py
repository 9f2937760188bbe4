"""Convolutions of torch's, computed the fastest way that is right on the device and in the precision at hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastfcn_pl.acceleration.cpu.winograd_training import conv3x3, conv3x3_weight, pays
from fastfcn_pl.acceleration.known_modules import is_untouched
from fastfcn_pl.ops.double_backward import double_backward

Geometry = tuple[Any, Any, Any, int]
"""Stride, padding, dilation and groups of a convolution."""
_LEAST_CHANNELS = 256
_TILES_FOR_MAP, _TILES_FOR_WEIGHT = 384, 128
"""Of 4x4 pixels, with which Winograd's products are faster: a weight's transform takes as long for a few as for many.

Output and gradient of the input take 0.6 of the time with 450 (512 channels), 0.9 with 512 (256 channels), 1.2 with 128
(1024 to 512); the weight's gradient 0.4, 0.6 and 0.7, and 1.6 with 32 (2048 to 512). Measured on 2 threads.
"""


def learns(conv: nn.Conv2d) -> bool:
    """Tell whether a gradient for its weight will be asked for."""
    return torch.is_grad_enabled() and conv.weight.requires_grad


def learns_in_full(conv: nn.Conv2d, x: Tensor) -> bool:
    """Tell whether it learns on a CPU, and not in half precision."""
    full = x.dtype in (torch.float32, torch.float64) and not torch.is_autocast_enabled("cpu")
    return learns(conv) and full and x.device.type == "cpu"


class WideConv(nn.Conv2d):
    """A 3x3 convolution of many channels, whose training takes Winograd's products where those are faster.

    That is in float32 on CPUs and the default memory format, see `convolve`.
    """

    stands_for = nn.Conv2d

    @classmethod
    def like(cls, conv: nn.Conv2d) -> WideConv | None:
        """Return one with `conv`'s own parameters, None where it is another kind of convolution."""
        if type(conv) is not nn.Conv2d or not _is_wide(conv.weight, geometry(conv)) or not is_plain(conv):
            return None
        new = cls(conv.in_channels, conv.out_channels, 3, padding=1, bias=conv.bias is not None)
        new.weight, new.bias = conv.weight, conv.bias
        return new

    def forward(self, x: Tensor) -> Tensor:
        if not learns_in_full(self, x) or torch.compiler.is_compiling():
            return super().forward(x)
        out: Tensor = _Convolution.apply(x, self.weight, geometry(self))
        return out if self.bias is None else out + self.bias[:, None, None]


class PointwiseConv(nn.Conv2d):
    """A dense 1x1 convolution whose training is products of matrices.

    In float32 on CPUs and the default memory format those are faster than oneDNN's convolution: the 51 of EncNet + JPU
    with ResNet-50 take 2.9 s in place of 3.7, forward and backward (2 images of 480x480, 2 threads).
    """

    stands_for = nn.Conv2d

    @classmethod
    def like(cls, conv: nn.Conv2d) -> PointwiseConv | None:
        """Return one with `conv`'s own parameters, None where it is another kind of convolution."""
        if type(conv) is not nn.Conv2d or conv.groups > 1 or conv.kernel_size != (1, 1) or conv.padding != (0, 0):
            return None
        new = cls(conv.in_channels, conv.out_channels, 1, bias=conv.bias is not None)
        new.stride, new.weight, new.bias = conv.stride, conv.weight, conv.bias
        return new

    def forward(self, x: Tensor) -> Tensor:
        if not learns_in_full(self, x):
            return super().forward(x)
        return product(x[..., :: self.stride[0], :: self.stride[1]], self.weight, self.bias)


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return the convolution of maps `(B, C, H, W)` with a weight `(O, C, 1, 1)`, as products of matrices."""
    matrices, pixels = weight.flatten(1).expand(len(x), -1, -1), x.flatten(2)
    out = torch.bmm(matrices, pixels) if bias is None else torch.baddbmm(bias[:, None], matrices, pixels)
    return out.unflatten(2, x.shape[2:])


def convolve(x: Tensor, weight: Tensor, of: Geometry) -> Tensor:
    """Return the convolution of maps `(B, C, H, W)` in full precision on CPUs, without bias, the fastest way.

    Winograd's takes 151 ms, for the gradient of its input 153 and of its weight 171, in place of 267, 263 and 422 (512
    channels, 2 maps of 60x60, 2 threads). It is off by up to 4e-5 of the spread, and a plain one by 1e-5.
    """
    if _is_product(weight, of):
        return product(x, weight)
    if _is_wide(weight, of) and pays(x, _TILES_FOR_MAP):
        return conv3x3(x, weight)
    return F.conv2d(x, weight, None, *of)


def convolve_gradients(
    gradient: Tensor, x: Tensor, weight: Tensor, of: Geometry, wanted: Sequence[bool] = (True, True)
) -> tuple[Tensor | None, Tensor | None]:
    """Return those of the input and of the weight of `convolve` that are `wanted`, from that of its output."""
    if _is_product(weight, of):
        of_weight = torch.bmm(gradient.flatten(2), x.flatten(2).mT).sum(0).view_as(weight) if wanted[1] else None
        return product(gradient, weight.transpose(0, 1)) if wanted[0] else None, of_weight
    wide = _is_wide(weight, of)
    of_x = of_weight = None
    if wanted[0] and wide and pays(x, _TILES_FOR_MAP):
        of_x = conv3x3(gradient, weight.flip(2, 3).transpose(0, 1))
    if wanted[1] and wide and pays(x, _TILES_FOR_WEIGHT):
        of_weight = conv3x3_weight(x, gradient)
    left = [wanted[0] and of_x is None, wanted[1] and of_weight is None, False]
    if any(left):
        *rest, groups = of
        options = None, *rest, False, [0, 0], groups, left
        plain = torch.ops.aten.convolution_backward(gradient, x, weight, *options)
        of_x, of_weight = plain[0] if left[0] else of_x, plain[1] if left[1] else of_weight
    return of_x, of_weight


def _plain(ctx: Any) -> tuple[Tensor, list[Tensor | None]]:
    x, weight = ctx.saved_tensors
    return F.conv2d(x, weight, None, *ctx.of), [x, weight, None]


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, of: Geometry) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.of = of
        return convolve(x, weight, of)

    @staticmethod
    @double_backward(_plain)
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        return *convolve_gradients(gradient, x, weight, ctx.of, ctx.needs_input_grad), None


def _is_product(weight: Tensor, of: Geometry) -> bool:
    """Tell whether it is a dense convolution of a pixel: for products of matrices, as in `PointwiseConv`."""
    return weight.shape[2:] == (1, 1) and of == ((1, 1), (0, 0), (1, 1), 1)


def _is_wide(weight: Tensor, of: Geometry) -> bool:
    """Tell whether Winograd's transforms, which grow with the channels, are few beside its products."""
    is_3x3 = weight.shape[2:] == (3, 3) and of == ((1, 1), (1, 1), (1, 1), 1)
    return is_3x3 and min(weight.shape[:2]) >= _LEAST_CHANNELS


def is_plain(module: nn.Module) -> TypeGuard[nn.Conv2d]:
    """Tell whether it computes what torch's own convolution does, with padding by zeros, whose size is said."""
    plain = type(module) in (nn.Conv2d, PointwiseConv, WideConv)
    return plain and module.padding_mode == "zeros" and not isinstance(module.padding, str)


def geometry(conv: nn.Conv2d) -> Geometry:
    """Return how it goes over a map."""
    return conv.stride, conv.padding, conv.dilation, conv.groups


def substitute(net: nn.Module, like: Callable[[nn.Conv2d], nn.Conv2d | None]) -> None:
    """Give each convolution of torch's the class of what `like` makes of it, if it makes one; all that it has stays."""
    for module in net.modules():
        if type(module) is nn.Conv2d and is_untouched(module) and type(module._parameters["weight"]) is nn.Parameter:
            found = like(module)
            if found is not None:
                module.__class__ = type(found)
