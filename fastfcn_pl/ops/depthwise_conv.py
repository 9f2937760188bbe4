"""Depthwise convolutions, computed the fastest way that is right on the device and in the precision at hand."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.grad import conv2d_weight

from fastfcn_pl.acceleration.cpu import cpu_convs
from fastfcn_pl.ops import triton_support
from fastfcn_pl.ops.double_backward import double_backward
from fastfcn_pl.ops.space_to_batch import in_phases, phases

_CACHE, _LANES = 3 * 2**19, 8
"""Bytes of a tile for each thread, and the channels that processors compute at once."""


class DepthwiseConv(nn.Conv2d):
    """Depthwise convolution that keeps the size, the way that is right and fastest for its dilation and precision."""

    stands_for = nn.Conv2d

    def __init__(self, channels: int, dilation: int, kernel_size: int = 3, bias: bool = False) -> None:
        padding = dilation * (kernel_size // 2)
        super().__init__(
            channels, channels, kernel_size, padding=padding, dilation=dilation, groups=channels, bias=bias
        )

    @classmethod
    def like(cls, conv: nn.Conv2d) -> DepthwiseConv | None:
        """Return one with `conv`'s own parameters, None where it is another kind of convolution."""
        channels, kernel, dilation = conv.in_channels, conv.kernel_size[0], conv.dilation[0]
        if kernel % 2 == 0:
            return None
        new = cls(channels, dilation, kernel, conv.bias is not None)
        same = ("out_channels", "groups", "kernel_size", "dilation", "padding", "stride", "padding_mode")
        if type(conv) is not nn.Conv2d or any(getattr(conv, name) != getattr(new, name) for name in same):
            return None
        new.weight, new.bias = conv.weight, conv.bias
        return new

    def forward(self, x: Tensor) -> Tensor:
        if x.is_cuda:
            return self._on_gpu(x)
        learns = cpu_convs.learns(self)
        if learns and (torch.is_autocast_enabled("cpu") or x.dtype == torch.bfloat16):
            # A dilated depthwise convolution in bfloat16 and channels_last has a wrong weight gradient, without a
            # warning (torch 2.14); tests/acceleration/cpu/test_cpu_convs.py holds it to float32's. The weight's strides
            # count too, and contiguous() does not touch them where a dimension is 1: flattening does.
            form = torch.contiguous_format if x.is_contiguous() else torch.channels_last
            out = self._conv_forward(x.contiguous(), self.weight.flatten().view(self.weight.shape), self.bias)
            return out.contiguous(memory_format=form)
        # Kernels for channels_last know no dilation in the backward pass, and none of 8 pixels in the forward pass:
        # in phases, 3x3 of 384 channels and dilation 8 takes 28 ms forward and backward in place of 200, of 2 takes 30
        # in place of 102, 5x5 of 1152 and dilation 4 takes 201 in place of 1249 (8 x 24x32 pixels, one core).
        dilation, reach = self.dilation[0], self.dilation[0] * (self.kernel_size[0] // 2)
        if x.device.type == "cpu" and not torch.compiler.is_compiling():
            if x.is_contiguous(memory_format=torch.channels_last):
                if dilation > 1 and (learns or reach >= 8):
                    return in_phases(x, dilation, self._undilated)
            elif learns and self.bias is None:
                return _InTiles.apply(x, self.weight, dilation)
        return super().forward(x)

    def _on_gpu(self, x: Tensor) -> Tensor:
        dtype = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else x.dtype
        ours = self.dilation[0] > 1 and dtype != torch.float64 and x.is_contiguous(memory_format=torch.channels_last)
        if not (ours and triton_support.runs_on(x)):
            return super().forward(x)
        from fastfcn_pl.ops.depthwise_conv_triton import DepthwiseConv2d, convolve

        x, weight = x.to(dtype), self.weight.to(dtype)
        if not torch.is_grad_enabled():
            return convolve(x, weight, self.dilation[0], self.bias)
        out: Tensor = DepthwiseConv2d.apply(x, weight, self.dilation[0])
        return out if self.bias is None else out + self.bias.to(dtype)[:, None, None]

    def _undilated(self, x: Tensor) -> Tensor:
        """Convolve `(B, H, W, C)` without dilation."""
        x, padding = x.permute(0, 3, 1, 2), self.kernel_size[0] // 2
        return F.conv2d(x, self.weight, self.bias, padding=padding, groups=self.groups).permute(0, 2, 3, 1)


def _plain(ctx: Any) -> tuple[Tensor, list[Tensor | None]]:
    x, weight = ctx.saved_tensors
    padding = ctx.dilation * (weight.shape[-1] // 2)
    out = F.conv2d(x, weight, padding=padding, dilation=ctx.dilation, groups=len(weight))
    return out, [x, weight, None]


class _InTiles(torch.autograd.Function):
    """A depthwise convolution of one stride and an odd kernel, in the default memory format on CPUs."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, dilation: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.dilation = dilation
        return depthwise_conv(x, weight, dilation)

    @staticmethod
    @double_backward(_plain)
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        wanted = ctx.needs_input_grad
        of_x = depthwise_conv(gradient, weight.flip(2, 3), ctx.dilation) if wanted[0] else None
        of_weight = depthwise_conv_weight(x, weight, gradient, ctx.dilation) if wanted[1] else None
        return of_x, of_weight, None


def depthwise_conv(x: Tensor, weight: Tensor, dilation: int, out: Tensor | None = None) -> Tensor:
    """Return, or write into `out`, the depthwise convolution of `(B, C, H, W)` with `(C, 1, k, k)`, of the same size.

    oneDNN reorders what it takes and gives, which a tile that stays in the cache makes cheap: 3x3 of 1536 channels
    takes 16 ms, of dilation 8 43, in place of 41 and 105 (2 maps of 60x60, 2 threads).
    """
    out = torch.empty_like(x) if out is None else out
    reach = dilation * (weight.shape[-1] // 2)
    for tile in _tiles(x):
        part, of_part, padding = x[tile], weight[tile[1]], reach
        if reach >= 8:  # which is more than its fast kernels pad by
            part, padding = F.pad(part, (reach,) * 4), 0
        out[tile] = F.conv2d(part, of_part, padding=padding, dilation=dilation, groups=len(of_part))
    return out


def depthwise_conv_weight(x: Tensor, weight: Tensor, gradient: Tensor, dilation: int) -> Tensor:
    """Return the gradient of the weight of `depthwise_conv`.

    In tiles as there, and in phases, since oneDNN's fast kernels for it know no dilation: 3x3 of 1536 channels takes
    21 ms, of dilation 2 60, in place of 62 and 194 (2 maps of 60x60, 2 threads).
    """
    out = torch.zeros_like(weight)
    for tile in _tiles(x):
        of_tile = out[tile[1]]
        parts = phases(x[tile], dilation), phases(gradient[tile], dilation)
        options = {"padding": weight.shape[-1] // 2, "groups": len(of_tile)}
        of_tile += conv2d_weight(parts[0], of_tile.shape, parts[1], **options)
    return out


def _tiles(x: Tensor) -> Iterator[tuple[slice, slice]]:
    """Yield images and channels of parts of `(B, C, H, W)` that lie in one piece, and in the cache."""
    most = _CACHE * torch.get_num_threads() // (x[0, 0].numel() * x.itemsize)
    count = -(-x.shape[1] // max(most, _LANES))
    channels = -(-x.shape[1] // (count * _LANES)) * _LANES
    for image in range(len(x)):
        for first in range(0, x.shape[1], channels):
            yield slice(image, image + 1), slice(first, first + channels)
