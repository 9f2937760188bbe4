"""Modulated deformable convolution (DCNv2, arXiv 1811.11168) in operations that exporters and compilers know."""

from __future__ import annotations

import torch
from torch import Tensor

from fastfcn_pl.ops.grid_sample import grid_sample, position_dtype


def deform_conv(x: Tensor, offsets: Tensor, mask: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Convolve `x` `(B, C, H, W)` at displaced taps, with stride 1 and padding: `(B, out_channels, H, W)`.

    `offsets` `(B, groups * taps * 2, H, W)` has the vertical and the horizontal displacement of each tap in pixels,
    `mask` `(B, groups * taps, H, W)` its factor; the channels of a group share both. Pixels outside of the map are 0.
    Arguments and result are those of `torchvision.ops.deform_conv2d`, which cannot be exported to ONNX and whose
    operations cannot be counted.
    """
    taps = weight.shape[2] * weight.shape[3]
    groups = mask.shape[1] // taps
    height, width = x.shape[-2:]
    dtype = position_dtype(x)
    moved = offsets.to(dtype).unflatten(1, (groups, taps, 2))
    columns, rows = (torch.arange(n, dtype=dtype, device=x.device) for n in (width, height))
    shift_y, shift_x = _centred(weight.shape[2], moved), _centred(weight.shape[3], moved)
    y = moved[:, :, :, 0] + rows[:, None] + shift_y.repeat_interleave(weight.shape[3])[:, None, None]
    x_position = moved[:, :, :, 1] + columns + shift_x.repeat(weight.shape[2])[:, None, None]
    # Groups are part of the batch, and taps of the height: (B * groups, taps * H, W).
    positions = ((2 * x_position + 1) / width - 1, (2 * y + 1) / height - 1)
    columns, rows = (position.flatten(0, 1).flatten(1, 2) for position in positions)
    sampled = grid_sample(x.unflatten(1, (groups, -1)).flatten(0, 1), columns, rows, "zeros", align_corners=False)
    sampled = sampled.unflatten(2, (taps, -1)).unflatten(0, (-1, groups))
    sampled = sampled * mask.unflatten(1, (groups, taps)).unsqueeze(2)
    # (B, groups, C / groups, taps, H, W) are the inputs of a product with the weight's (C, taps).
    product = torch.einsum("oct,bcthw->bohw", weight.flatten(2), sampled.flatten(1, 2))
    return product + bias[:, None, None]


def _centred(length: int, like: Tensor) -> Tensor:
    """Return the positions of a kernel's taps relative to its centre."""
    return torch.arange(length, dtype=like.dtype, device=like.device) - length // 2
