"""Depthwise convolutions of maps in channels_last as Triton kernels, dilated or not."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastfcn_pl.ops.double_backward import double_backward

_PIXELS, _CHANNELS = 16, 64
"""Pixels of a row and channels that a program keeps in registers."""
_SUMS = 64
"""Partial sums over all pixels."""


def _plain(ctx: Any) -> tuple[Tensor, list[Tensor | None]]:
    x, weight = ctx.saved_tensors
    padding = ctx.dilation * (weight.shape[-1] // 2)
    out = torch.conv2d(x, weight, None, 1, padding, ctx.dilation, len(weight))
    return out, [x, weight, None]


class DepthwiseConv2d(torch.autograd.Function):
    """Convolve `x` `(B, C, H, W)` in channels_last with `weight` `(C, 1, K, K)`, K odd; the map keeps its size.

    Both have one precision, which is that of the result; sums are in float32.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, dilation: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.dilation = dilation
        return convolve(x, weight, dilation)

    @staticmethod
    @double_backward(_plain)
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        of_x = convolve(gradient, weight, ctx.dilation, mirrored=True) if ctx.needs_input_grad[0] else None
        of_weight = gradient_of_weight(gradient, x, weight, ctx.dilation) if ctx.needs_input_grad[1] else None
        return of_x, of_weight, None


def convolve(x: Tensor, weight: Tensor, dilation: int, bias: Tensor | None = None, mirrored: bool = False) -> Tensor:
    """Return the convolution with the weight, or with the mirrored one, which computes the gradient of `x`."""
    batch, channels, height, width = x.shape
    out, weight = torch.empty_like(x), weight.contiguous()
    grid = batch * height, triton.cdiv(width, _PIXELS), triton.cdiv(channels, _CHANNELS)
    options = weight.shape[-1], mirrored, _PIXELS, _CHANNELS
    with torch.cuda.device_of(x):
        _convolve[grid](x, weight, bias, out, height, width, channels, dilation, *options)
    return out


def gradient_of_weight(gradient: Tensor, x: Tensor, weight: Tensor, dilation: int) -> Tensor:
    """Return the gradient with respect to the weight, given that of the result."""
    batch, channels, height, width = x.shape
    side, rows = weight.shape[-1], batch * height
    parts = min(_SUMS, rows)
    sums = torch.empty(parts, side * side, channels, device=x.device, dtype=torch.float32)
    grid = side * side, parts, triton.cdiv(channels, _CHANNELS)  # programs that read the same pixels run at once
    options = side, _PIXELS, _CHANNELS
    with torch.cuda.device_of(x):
        _sum_products[grid](gradient, x, sums, rows, height, width, channels, dilation, *options)
    return sums.sum(0).T.reshape(weight.shape).to(weight.dtype)


@triton.jit
def _convolve(
    x_pointer,
    weight_pointer,
    bias_pointer,
    out_pointer,
    height,
    width,
    channels,
    dilation,
    side: tl.constexpr,
    mirrored: tl.constexpr,
    pixels: tl.constexpr,
    of_channels: tl.constexpr,
):
    """Compute `pixels` of a row, of `of_channels`."""
    row = tl.program_id(0)
    first = (row - row % height).to(tl.int64)  # of the image
    y = row % height
    x = tl.program_id(1) * pixels + tl.arange(0, pixels)
    c = tl.program_id(2) * of_channels + tl.arange(0, of_channels)
    total = tl.zeros((pixels, of_channels), tl.float32)
    if bias_pointer is not None:
        total += tl.load(bias_pointer + c, mask=c < channels, other=0.0).to(tl.float32)[None, :]
    for tap in tl.static_range(side * side):
        from_y = y + (tap // side - side // 2) * dilation
        from_x = x + (tap % side - side // 2) * dilation
        inside = (from_y >= 0) & (from_y < height) & (from_x >= 0) & (from_x < width)
        place = ((first + from_y) * width + from_x[:, None]) * channels + c[None, :]
        seen = tl.load(x_pointer + place, mask=inside[:, None] & (c < channels)[None, :], other=0.0)
        of_weight = c * (side * side) + (side * side - 1 - tap if mirrored else tap)
        factor = tl.load(weight_pointer + of_weight, mask=c < channels, other=0.0)
        total += seen.to(tl.float32) * factor.to(tl.float32)[None, :]
    place = ((first + y) * width + x[:, None]) * channels + c[None, :]
    rounded = total.to(out_pointer.dtype.element_ty)
    tl.store(out_pointer + place, rounded, mask=(x < width)[:, None] & (c < channels)[None, :])


@triton.jit
def _sum_products(
    gradient_pointer,
    x_pointer,
    sums_pointer,
    rows,
    height,
    width,
    channels,
    dilation,
    side: tl.constexpr,
    pixels: tl.constexpr,
    of_channels: tl.constexpr,
):
    """Sum the products of gradient and map for a tap of `of_channels` over some of the rows of all images."""
    tap, part = tl.program_id(0), tl.program_id(1)
    c = tl.program_id(2) * of_channels + tl.arange(0, of_channels)
    sums = tl.zeros((pixels, of_channels), tl.float32)
    for row in range(part, rows, tl.num_programs(1)):
        first = (row - row % height).to(tl.int64)
        y = row % height
        from_y = y + (tap // side - side // 2) * dilation
        for left in range(0, width, pixels):
            x = left + tl.arange(0, pixels)
            from_x = x + (tap % side - side // 2) * dilation
            inside = (from_y >= 0) & (from_y < height) & (from_x >= 0) & (from_x < width) & (x < width)
            known = inside[:, None] & (c < channels)[None, :]
            here = ((first + y) * width + x[:, None]) * channels + c[None, :]
            there = ((first + from_y) * width + from_x[:, None]) * channels + c[None, :]
            gradient = tl.load(gradient_pointer + here, mask=known, other=0.0)
            sums += gradient.to(tl.float32) * tl.load(x_pointer + there, mask=known, other=0.0).to(tl.float32)
    place = (part * (side * side) + tap) * channels + c
    tl.store(sums_pointer + place, tl.sum(sums, axis=0), mask=c < channels)
