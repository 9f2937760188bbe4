"""Convolutions: outputs and gradients in each memory format and precision that training may choose."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fastfcn_pl.models.backbones.timm import TimmBackbone
from fastfcn_pl.models.convolutions import DepthwiseConv, PointwiseConv
from fastfcn_pl.models.layers import SeparableConv


@pytest.mark.parametrize("dilation", [1, 2, 4, 8])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_depthwise_gradient_in_bfloat16_is_float32s(dilation: int, memory_format: torch.memory_format) -> None:
    torch.manual_seed(0)
    layer = DepthwiseConv(48, dilation)
    x = torch.randn(2, 48, 60, 60)
    layer(x).square().mean().backward()
    expected = layer.weight.grad.clone()

    layer.zero_grad()
    layer.to(memory_format=memory_format)
    with torch.autocast("cpu", torch.bfloat16):
        layer(x.to(memory_format=memory_format)).float().square().mean().backward()
    error = (layer.weight.grad - expected).norm() / expected.norm()
    assert error < 0.02


@pytest.mark.parametrize("size", [(24, 32), (23, 30), (3, 5), (1, 1)])
@pytest.mark.parametrize(("kernel", "dilation"), [(3, 2), (3, 8), (5, 2), (5, 4), (7, 3)])
@pytest.mark.parametrize("form", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("bias", [True, False])
def test_a_dilated_depthwise_convolution_is_the_plain_one(
    size: tuple[int, int], kernel: int, dilation: int, form: torch.memory_format, bias: bool
) -> None:
    torch.manual_seed(0)
    layer = DepthwiseConv(6, dilation, kernel, bias=bias).to(memory_format=form)
    x = torch.randn(2, 6, *size).to(memory_format=form).requires_grad_()
    wanted = (x, *layer.parameters())
    plain = F.conv2d(x, layer.weight, layer.bias, padding=layer.padding, dilation=dilation, groups=6)
    weights = torch.randn_like(plain)
    found = layer(x)
    torch.testing.assert_close(found, plain, atol=1e-6, rtol=1e-5)
    gradients = (torch.autograd.grad((y * weights).sum(), wanted) for y in (found, plain))
    for gradient, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(gradient, expected, atol=1e-4, rtol=1e-3)
    with torch.no_grad():
        torch.testing.assert_close(layer(x), plain, atol=1e-6, rtol=1e-5)


def test_a_dilated_backbone_has_its_depthwise_convolutions_in_phases() -> None:
    net = TimmBackbone(name="efficientnet_lite0", output_stride=8, pretrained=False).net
    strided = TimmBackbone(name="efficientnet_lite0", output_stride=32, pretrained=False).net
    dilated = [layer for layer in net.modules() if isinstance(layer, nn.Conv2d) and layer.dilation != (1, 1)]
    assert len(dilated) >= 8
    assert all(isinstance(layer, DepthwiseConv) for layer in dilated)
    assert list(net.state_dict()) == list(strided.state_dict())


@pytest.mark.parametrize(("stride", "bias"), [(1, False), (1, True), (2, False)])
def test_a_pointwise_convolution_is_the_plain_one(stride: int, bias: bool) -> None:
    torch.manual_seed(0)
    plain = nn.Conv2d(6, 10, 1, stride, bias=bias)
    layer, x = PointwiseConv.like(plain), torch.randn(2, 6, 13, 16, requires_grad=True)
    assert layer is not None
    outputs = plain(x), layer(x)
    torch.testing.assert_close(*outputs)
    weights = torch.randn_like(outputs[0])
    gradients = (torch.autograd.grad((y * weights).sum(), [x, *plain.parameters()]) for y in outputs)
    for expected, found in zip(*gradients, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    with torch.no_grad():
        torch.testing.assert_close(layer(x), outputs[0])


@pytest.mark.parametrize("conv", [nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 1, groups=2), nn.Conv2d(4, 4, 1, padding=1)])
def test_only_dense_convolutions_of_a_pixel_are_pointwise(conv: nn.Conv2d) -> None:
    assert PointwiseConv.like(conv) is None


def test_separable_conv_keeps_the_size() -> None:
    assert SeparableConv(6, 10, dilation=8)(torch.randn(2, 6, 5, 7)).shape == (2, 10, 5, 7)
