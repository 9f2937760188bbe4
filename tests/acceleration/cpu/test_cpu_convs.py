"""Convolutions: outputs and gradients in each memory format and precision that training may choose."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fastfcn_pl.acceleration.cpu.cpu_convs import PointwiseConv, WideConv
from fastfcn_pl.acceleration.cpu.winograd_training import pays
from fastfcn_pl.models.backbones.timm import TimmBackbone
from fastfcn_pl.models.layers import SeparableConv
from fastfcn_pl.ops.depthwise_conv import DepthwiseConv


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
@pytest.mark.parametrize(("kernel", "dilation"), [(3, 1), (3, 2), (3, 8), (5, 2), (5, 4), (7, 3)])
@pytest.mark.parametrize("form", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("bias", [True, False])
def test_a_depthwise_convolution_is_the_plain_one(
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


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [(48, 60), (47, 57), (90, 33)])
@pytest.mark.parametrize("bias", [True, False])
def test_a_wide_convolution_is_the_plain_one(dtype: torch.dtype, size: tuple[int, int], bias: bool) -> None:
    torch.manual_seed(0)
    plain = nn.Conv2d(256, 264, 3, padding=1, bias=bias).to(dtype)
    layer, x = WideConv.like(plain), torch.randn(3, 256, *size, dtype=dtype, requires_grad=True)
    assert layer is not None
    assert pays(x, 384), "the sizes are too small for Winograd's products"
    outputs = plain(x), layer(x)
    weights = torch.randn_like(outputs[0])
    gradients = (torch.autograd.grad((y * weights).sum(), [x, *plain.parameters()]) for y in outputs)
    # Of a product of float32 the plain one is off by 1e-6 of its size; tiles are by twice as much.
    tolerance = 1e-5 if dtype == torch.float32 else 1e-13
    for expected, found in zip((outputs[0], *next(gradients)), (outputs[1], *next(gradients)), strict=True):
        assert (found - expected).norm() / expected.norm() < tolerance
        assert found.is_contiguous()
    with torch.no_grad():
        torch.testing.assert_close(layer(x), outputs[0])


def test_a_wide_convolution_behind_what_is_frozen_asks_for_no_gradient_of_its_input() -> None:
    layer, x = WideConv.like(nn.Conv2d(256, 256, 3, padding=1)), torch.randn(1, 256, 9, 9)
    assert layer is not None
    layer(x).sum().backward()
    assert x.grad is None
    assert layer.weight.grad is not None


@pytest.mark.parametrize(
    ("size", "images", "all_fit"), [((60, 60), 2, True), ((15, 15), 2, False), ((5, 400), 8, True)]
)
def test_tiles_are_many_and_full_or_left(size: tuple[int, int], images: int, all_fit: bool) -> None:
    assert pays(torch.empty(images, 1, *size, device="meta"), 128) is all_fit
    assert not pays(torch.empty(4096, 1, 1, 1, device="meta"), 128), "a tile for each pixel"


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(256, 128, 3, padding=1),
        nn.Conv2d(256, 256, 3, 2, padding=1),
        nn.Conv2d(256, 256, 3, padding=2, dilation=2),
        nn.Conv2d(256, 256, 3),
        nn.Conv2d(512, 512, 3, padding=1, groups=2),
        nn.Conv2d(256, 256, 3, padding=1, padding_mode="reflect"),
        nn.Conv2d(256, 256, 3, padding="same"),
    ],
)
def test_only_plain_3x3_convolutions_of_many_channels_are_wide(conv: nn.Conv2d) -> None:
    assert WideConv.like(conv) is None


def test_separable_conv_keeps_the_size() -> None:
    assert SeparableConv(6, 10, dilation=8)(torch.randn(2, 6, 5, 7)).shape == (2, 10, 5, 7)
