"""Convolutions of torch's, computed the fastest way that is right on the device and in the precision at hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.grad import conv2d_weight

from fastfcn_pl import kernels


class DepthwiseConv(nn.Conv2d):
    """Depthwise convolution that keeps the size, the way that is right and fastest for its dilation and precision."""

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
        learns = _learns(self)
        if learns and (torch.is_autocast_enabled("cpu") or x.dtype == torch.bfloat16):
            # A dilated depthwise convolution in bfloat16 and channels_last has a wrong weight gradient, without a
            # warning (torch 2.14); tests/models/test_convolutions.py holds it to float32's. The weight's strides
            # count too, and contiguous() does not touch them where a dimension is 1: flattening does.
            form = torch.contiguous_format if x.is_contiguous() else torch.channels_last
            out = self._conv_forward(x.contiguous(), self.weight.flatten().view(self.weight.shape), self.bias)
            return out.contiguous(memory_format=form)
        # Kernels for channels_last know no dilation in the backward pass, and none of 8 pixels in the forward pass:
        # in phases, 3x3 of 384 channels and dilation 8 takes 28 ms forward and backward in place of 200, of 2 takes 30
        # in place of 102, 5x5 of 1152 and dilation 4 takes 201 in place of 1249 (8 x 24x32 pixels, one core).
        dilation, reach = self.dilation[0], self.dilation[0] * (self.kernel_size[0] // 2)
        if dilation > 1 and x.device.type == "cpu" and not torch.compiler.is_compiling():
            if x.is_contiguous(memory_format=torch.channels_last):
                if learns or reach >= 8:
                    return in_phases(x, dilation, self._undilated)
            elif learns and self.bias is None:
                return _Dilated.apply(x, self.weight, dilation)
        return super().forward(x)

    def _on_gpu(self, x: Tensor) -> Tensor:
        dtype = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else x.dtype
        ours = self.dilation[0] > 1 and dtype != torch.float64 and x.is_contiguous(memory_format=torch.channels_last)
        if not (ours and kernels.runs_on(x)):
            return super().forward(x)
        from fastfcn_pl.models.depthwise_kernels import DepthwiseConv2d, convolve

        x, weight = x.to(dtype), self.weight.to(dtype)
        if not torch.is_grad_enabled():
            return convolve(x, weight, self.dilation[0], self.bias)
        out: Tensor = DepthwiseConv2d.apply(x, weight, self.dilation[0])
        return out if self.bias is None else out + self.bias.to(dtype)[:, None, None]

    def _undilated(self, x: Tensor) -> Tensor:
        """Convolve `(B, H, W, C)` without dilation."""
        x, padding = x.permute(0, 3, 1, 2), self.kernel_size[0] // 2
        return F.conv2d(x, self.weight, self.bias, padding=padding, groups=self.groups).permute(0, 2, 3, 1)


def _learns(conv: nn.Conv2d) -> bool:
    return torch.is_grad_enabled() and conv.weight.requires_grad


def learns_in_full(conv: nn.Conv2d, x: Tensor) -> bool:
    """Tell whether it learns on a CPU, and not in half precision."""
    full = x.dtype in (torch.float32, torch.float64) and not torch.is_autocast_enabled("cpu")
    return _learns(conv) and full and x.device.type == "cpu"


class _Dilated(torch.autograd.Function):
    """A dilated depthwise convolution of one stride and an odd kernel, in the default memory format.

    Its gradient is a convolution with the mirrored weight, for which oneDNN has faster kernels than for gradients: of
    1536 channels, for map and weight, 210 ms in place of 290 (2 maps of 60x60, 2 threads).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, dilation: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.options = {"padding": dilation * (weight.shape[-1] // 2), "dilation": dilation, "groups": len(weight)}
        return F.conv2d(x, weight, **ctx.options)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        wanted = ctx.needs_input_grad
        of_x = F.conv2d(gradient, weight.flip(2, 3), **ctx.options) if wanted[0] else None
        of_weight = conv2d_weight(x, weight.shape, gradient, **ctx.options) if wanted[1] else None
        return of_x, of_weight, None


class PointwiseConv(nn.Conv2d):
    """A dense 1x1 convolution whose training is products of matrices.

    In float32 on CPUs and the default memory format those are faster than oneDNN's convolution: the 51 of EncNet + JPU
    with ResNet-50 take 2.9 s in place of 3.7, forward and backward (2 images of 480x480, 2 threads).
    """

    @classmethod
    def like(cls, conv: nn.Conv2d) -> PointwiseConv | None:
        """Return one with `conv`'s own parameters, None where it is another kind of convolution."""
        if type(conv) is not nn.Conv2d or conv.groups > 1 or conv.kernel_size != (1, 1) or conv.padding != (0, 0):
            return None
        new = cls(conv.in_channels, conv.out_channels, 1, bias=conv.bias is not None)
        new.stride, new.weight, new.bias = conv.stride, conv.weight, conv.bias
        return new

    def multiplies(self, x: Tensor) -> bool:
        """Tell whether products of matrices compute this convolution of `x`."""
        return learns_in_full(self, x)

    def forward(self, x: Tensor) -> Tensor:
        if not self.multiplies(x):
            return super().forward(x)
        return product(x[..., :: self.stride[0], :: self.stride[1]], self.weight, self.bias)


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return the convolution of maps `(B, C, H, W)` with a weight `(O, C, 1, 1)`, as products of matrices."""
    matrices, pixels = weight.flatten(1).expand(len(x), -1, -1), x.flatten(2)
    out = torch.bmm(matrices, pixels) if bias is None else torch.baddbmm(bias[:, None], matrices, pixels)
    return out.unflatten(2, x.shape[2:])


def is_plain(module: nn.Module) -> TypeGuard[nn.Conv2d]:
    """Tell whether it computes what torch's own convolution does, with padding by zeros, whose size is said."""
    plain = type(module) in (nn.Conv2d, PointwiseConv)
    return plain and module.padding_mode == "zeros" and not isinstance(module.padding, str)


def substitute(net: nn.Module, like: Callable[[nn.Conv2d], nn.Conv2d | None]) -> None:
    """Put what `like` makes of a convolution in its place, where it makes one; names of weights stay."""
    for parent in list(net.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.Conv2d) and (conv := like(child)):
                setattr(parent, name, conv)


def in_phases(x: Tensor, dilation: int, convolve: Callable[[Tensor], Tensor]) -> Tensor:
    """Convolve the pixels of each phase, which are `dilation` apart, as an image of its own: a dilated convolution.

    `(B, C, H, W)` to `(B, C', H, W)`; `convolve` keeps the size of images `(B, H, W, C)`.
    """
    batch, _, height, width = x.shape
    x = F.pad(x.permute(0, 2, 3, 1), (0, 0, 0, -width % dilation, 0, -height % dilation))
    phases = x.unflatten(1, (-1, dilation)).unflatten(3, (-1, dilation)).permute(0, 2, 4, 1, 3, 5).flatten(0, 2)
    out = convolve(phases).unflatten(0, (batch, dilation, dilation)).permute(0, 3, 1, 4, 2, 5)
    return out.flatten(3, 4).flatten(1, 2)[:, :height, :width].permute(0, 3, 1, 2)
