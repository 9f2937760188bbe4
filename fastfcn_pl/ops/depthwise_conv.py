"""Depthwise convolutions that keep the size: torch's own, and faster ones for maps in channels_last."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from fastfcn_pl.ops import triton_support
from fastfcn_pl.ops.fast_paths import is_enabled
from fastfcn_pl.ops.space_to_batch import convolve_phases


def depthwise_conv(x: Tensor, weight: Tensor, bias: Tensor | None, dilation: int) -> Tensor:
    """Return `x` `(B, C, H, W)` convolved with `weight` `(C, 1, K, K)`, K odd, and stride 1; the map keeps its size.

    Dilated ones are slow in channels_last: forward and backward with cuDNN, and backward with oneDNN on a CPU.
    """
    if dilation > 1 and x.is_contiguous(memory_format=torch.channels_last) and not torch.compiler.is_compiling():
        if x.is_cuda:
            return _on_gpu(x, weight, bias, dilation)
        if torch.is_grad_enabled() and weight.requires_grad and is_enabled("phased depthwise"):
            return _in_phases(x, weight, bias, dilation)
    return reference(x, weight, bias, dilation)


def reference(x: Tensor, weight: Tensor, bias: Tensor | None, dilation: int) -> Tensor:
    """Return the same by torch's own convolution."""
    padding = dilation * (weight.shape[-1] // 2)
    return F.conv2d(x, weight, bias, padding=padding, dilation=dilation, groups=len(weight))


def _in_phases(x: Tensor, weight: Tensor, bias: Tensor | None, dilation: int) -> Tensor:
    """Return the same in channels_last by a convolution without dilation."""
    convolve = lambda phases: reference(phases.permute(0, 3, 1, 2), weight, bias, 1).permute(0, 2, 3, 1)  # noqa: E731
    return convolve_phases(x, dilation, convolve)


def _on_gpu(x: Tensor, weight: Tensor, bias: Tensor | None, dilation: int) -> Tensor:
    """Return the same by Triton kernels, if they can run."""
    dtype = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else x.dtype
    if dtype == torch.float64 or not (is_enabled("triton depthwise") and triton_support.runs_on(x)):
        return reference(x, weight, bias, dilation)
    from fastfcn_pl.ops.depthwise_conv_triton import DepthwiseConv2d, convolve  # triton may not be installed

    x, weight = x.to(dtype), weight.to(dtype)
    if not torch.is_grad_enabled():
        return convolve(x, weight, dilation, bias)
    out: Tensor = DepthwiseConv2d.apply(x, weight, dilation)
    return out if bias is None else out + bias.to(dtype)[:, None, None]
