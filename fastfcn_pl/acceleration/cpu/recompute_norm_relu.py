"""Layers that keep less than torch's for their gradient, which is the same."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastfcn_pl.acceleration.cpu.batch_norm_stats import batch_statistics, count_batch, learns_plainly, watched
from fastfcn_pl.acceleration.cpu.cpu_convs import convolve, convolve_gradients, geometry, is_plain, learns_in_full
from fastfcn_pl.ops.double_backward import double_backward

_BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


class LeanReLU(nn.ReLU):
    """ReLU in place, which keeps a byte for each number.

    torch's keeps its output, which costs nothing where a convolution behind it, which needs that, keeps it as well; in
    front of a pool or a concatenation it does.
    """

    stands_for = nn.ReLU

    def __init__(self) -> None:
        super().__init__(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return _ReLU.apply(x) if _learns(self, x) else super().forward(x)


class LeanMaxPool2d(nn.MaxPool2d):
    """Max pooling, which keeps 4 bytes for each number that it gives: torch's keeps 8, and all of its input."""

    stands_for = nn.MaxPool2d

    @classmethod
    def like(cls, pool: nn.MaxPool2d) -> LeanMaxPool2d:
        """Return one that gives the same."""
        geometry = pool.kernel_size, pool.stride, pool.padding, pool.dilation
        return cls(*geometry, return_indices=pool.return_indices, ceil_mode=pool.ceil_mode)

    def forward(self, x: Tensor) -> Any:
        if self.return_indices or not _learns(self, x):
            return super().forward(x)
        geometry = self.kernel_size, self.stride, self.padding, self.dilation
        return _MaxPool.apply(x, *map(_pair, geometry), self.ceil_mode)


class LeanSequential(nn.Sequential):
    """Modules one after the other, of which batch norm, ReLU and convolution in a row keep one map in place of two."""

    stands_for = nn.Sequential

    def forward(self, x: Tensor) -> Tensor:
        modules = list(self)
        while modules:
            if len(modules) >= 3 and are_norm_relu_conv(*modules[:3]):
                x, modules = norm_relu_conv(x, *modules[:3]), modules[3:]
            else:
                x, modules = modules[0](x), modules[1:]
        return x


def are_norm_relu_conv(norm: nn.Module, relu: nn.Module, conv: nn.Module) -> bool:
    """Tell whether `norm_relu_conv` takes them."""
    return isinstance(norm, nn.BatchNorm2d) and type(relu) is nn.ReLU and isinstance(conv, nn.Conv2d)


def norm_relu_conv(x: Tensor, norm: nn.Module, relu: nn.Module, conv: nn.Module) -> Tensor:
    """Return `conv(relu(norm(x)))`; in training on CPUs, in full precision, only `x` is kept for the gradient.

    What goes into the convolution is computed again, which takes one multiplication and one addition for each number: a
    step of EncNet + JPU with ResNet-50 keeps 171 MiB less, in the same time (2 images of 480x480, 2 threads).
    """
    learns = x.requires_grad and not watched(norm, relu, conv)
    if learns and is_plain(conv) and conv.bias is None and learns_in_full(conv, x) and learns_plainly(norm, x):
        statistics = batch_statistics(norm, x, count_batch(norm))
        return _NormReLUConv.apply(x, conv.weight, geometry(conv), norm.eps, norm.weight, norm.bias, *statistics)
    return conv(relu(norm(x)))


def pool_leanly(net: nn.Module) -> None:
    """Put lean layers in the place of each ReLU of `net` with a max pool behind it, and of that."""
    for relu, pool in pairwise(net.children()):
        if type(relu) is nn.ReLU and relu.inplace and type(pool) is nn.MaxPool2d:
            relu.__class__, pool.__class__ = LeanReLU, LeanMaxPool2d


def _learns(layer: nn.Module, x: Tensor) -> bool:
    return layer.training and x.requires_grad and torch.is_grad_enabled() and not torch.compiler.is_compiling()


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else tuple(value)


class _ReLU(torch.autograd.Function):
    """Its mask has all bits of a number set or none: on CPUs `&` takes a third of the time of `torch.where`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.mark_dirty(x)
        ctx.save_for_backward((x <= 0).view(torch.int8) - 1)
        return x.relu_()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (mask,) = ctx.saved_tensors
        if torch.is_grad_enabled():  # for gradients of second order: `&` has none
            return gradient.masked_fill(mask == 0, 0)
        return (mask & gradient.view(_BITS[gradient.itemsize])).view(gradient.dtype)


class _MaxPool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, *options: Any) -> Tensor:
        out, indices = torch.ops.aten.max_pool2d_with_indices(x, *options)
        ctx.save_for_backward(indices.int())
        last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
        ctx.format = torch.channels_last if last else torch.contiguous_format
        ctx.shape, ctx.options = x.shape, options
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (indices,) = ctx.saved_tensors
        # Of the input only its form is looked at, and memory that nothing is written to is not taken.
        x = torch.empty(ctx.shape, dtype=gradient.dtype, device=gradient.device, memory_format=ctx.format)
        of_x = torch.ops.aten.max_pool2d_with_indices_backward(gradient, x, *ctx.options, indices.long())
        return of_x, *(None for _ in ctx.options)


def _plain(ctx: Any) -> tuple[Tensor, list[Tensor | None]]:
    x, weight, gain, shift, _, _ = ctx.saved_tensors
    y = F.batch_norm(x, None, None, gain, shift, training=True, eps=ctx.eps).relu()
    return F.conv2d(y, weight, None, *ctx.geometry), [x, weight, None, None, gain, shift, None, None]


class _NormReLUConv(torch.autograd.Function):
    """Of maps `(B, C, H, W)`, a weight, and what is `(C,)`: gain and shift of the norm, mean and 1/std of the maps."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, of: Any, eps: float, *norm: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight, *norm)
        ctx.geometry, ctx.eps = of, eps
        y = _activated(x, *norm)
        return convolve(y, weight, of)

    @staticmethod
    @double_backward(_plain)
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, gain, shift, mean, inverse_std = ctx.saved_tensors
        y = _activated(x, gain, shift, mean, inverse_std)
        of_y, of_weight = convolve_gradients(gradient, y, weight, ctx.geometry)
        of_y = torch.ops.aten.threshold_backward(of_y, y, 0)
        statistics = None, None, mean, inverse_std
        gradients = torch.ops.aten.native_batch_norm_backward(of_y, x, gain, *statistics, True, 0.0, [True] * 3)
        of_x, of_gain, of_shift = gradients
        return of_x, of_weight, None, None, of_gain, of_shift, None, None


def _activated(x: Tensor, gain: Tensor, shift: Tensor, mean: Tensor, inverse_std: Tensor) -> Tensor:
    scale = gain * inverse_std
    offset = shift - mean * scale
    return torch.addcmul(offset[:, None, None], x, scale[:, None, None]).relu_()
