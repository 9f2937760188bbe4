"""Depthwise convolutions that keep the size: torch's own, and a kernel for GPUs."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from fastfcn_pl.ops import triton_support
from fastfcn_pl.ops.fast_paths import is_enabled


def depthwise_conv(x: Tensor, weight: Tensor, bias: Tensor | None, dilation: int) -> Tensor:
    """Return `x` `(B, C, H, W)` convolved with `weight` `(C, 1, K, K)`, K odd, and stride 1; the map keeps its size.

    cuDNN is slow for dilated ones in channels_last, which `depthwise_conv_triton` computes if it can run.
    """
    dtype = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else x.dtype
    fast = dilation > 1 and dtype != torch.float64 and x.is_contiguous(memory_format=torch.channels_last)
    if not (fast and is_enabled("triton depthwise") and triton_support.runs_on(x)):
        return reference(x, weight, bias, dilation)
    from fastfcn_pl.ops.depthwise_conv_triton import DepthwiseConv2d, convolve  # triton may not be installed

    x, weight = x.to(dtype), weight.to(dtype)
    if not torch.is_grad_enabled():
        return convolve(x, weight, dilation, bias)
    out: Tensor = DepthwiseConv2d.apply(x, weight, dilation)
    return out if bias is None else out + bias.to(dtype)[:, None, None]


def reference(x: Tensor, weight: Tensor, bias: Tensor | None, dilation: int) -> Tensor:
    """Return the same by torch's own convolution."""
    padding = dilation * (weight.shape[-1] // 2)
    return F.conv2d(x, weight, bias, padding=padding, dilation=dilation, groups=len(weight))
