"""The depthwise convolution for GPUs is the plain one, map and gradients; without a GPU Triton interprets it."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

pytest.importorskip("triton")
from fastfcn_pl.ops.depthwise_conv import reference
from fastfcn_pl.ops.depthwise_conv_triton import DepthwiseConv2d, convolve

pytestmark = pytest.mark.slow
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


SMALL, WIDE, NARROW = (2, 6, 5, 19), (1, 70, 3, 16), (1, 3, 5, 1)


@pytest.mark.parametrize(
    ("kernel", "dilation", "size"),
    [(3, 1, SMALL), (3, 2, SMALL), (3, 8, SMALL), (5, 4, SMALL), (3, 2, WIDE), (3, 2, NARROW), (5, 4, NARROW)],
)
def test_it_is_the_plain_one(kernel: int, dilation: int, size: tuple[int, int, int, int]) -> None:
    torch.manual_seed(0)
    x = torch.randn(*size, device=DEVICE).contiguous(memory_format=torch.channels_last).requires_grad_()
    weight = torch.randn(size[1], 1, kernel, kernel, device=DEVICE, requires_grad=True)
    plain = F.conv2d(x.double(), weight.double(), None, 1, dilation * (kernel // 2), dilation, size[1])
    actual = DepthwiseConv2d.apply(x, weight, dilation)
    torch.testing.assert_close(actual.double(), plain, atol=1e-5, rtol=1e-5)
    assert actual.is_contiguous(memory_format=torch.channels_last)
    above = torch.randn(*size, device=DEVICE)
    expected = torch.autograd.grad(plain, (x, weight), above.double())
    for gradient, of_plain in zip(torch.autograd.grad(actual, (x, weight), above), expected, strict=True):
        torch.testing.assert_close(gradient, of_plain, atol=1e-4, rtol=1e-4)


def test_the_bias_is_inside() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 6, 9, 21, device=DEVICE).contiguous(memory_format=torch.channels_last)
    weight, bias = torch.randn(6, 1, 3, 3, device=DEVICE), torch.randn(6, device=DEVICE)
    expected = convolve(x, weight, 2) + bias[:, None, None]
    torch.testing.assert_close(convolve(x, weight, 2, bias), expected, atol=1e-5, rtol=1e-5)


def test_only_the_gradient_that_is_asked_for_is_made() -> None:
    x = torch.randn(1, 4, 5, 6, device=DEVICE).contiguous(memory_format=torch.channels_last)
    weight = torch.randn(4, 1, 3, 3, device=DEVICE, requires_grad=True)
    DepthwiseConv2d.apply(x, weight, 2).sum().backward()
    assert x.grad is None
    assert weight.grad is not None


def test_gradient_of_second_order() -> None:
    torch.manual_seed(0)
    x = torch.randn(1, 3, 5, 6, device=DEVICE).contiguous(memory_format=torch.channels_last)
    weight, actual = torch.randn(3, 1, 3, 3, device=DEVICE), []
    for convolve_with in (DepthwiseConv2d.apply, lambda x, w, d: reference(x, w, None, d)):
        leaves = x.clone().requires_grad_(), weight.clone().requires_grad_()
        gradients = torch.autograd.grad(convolve_with(*leaves, 2).square().sum(), leaves, create_graph=True)
        actual.append(torch.autograd.grad(sum(g.square().sum() for g in gradients), leaves))
    for one, other in zip(*actual, strict=True):
        torch.testing.assert_close(one, other, atol=1e-3, rtol=1e-4)
