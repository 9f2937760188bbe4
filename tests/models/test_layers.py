"""Layers: gradients in each memory format and precision that training may choose."""

from __future__ import annotations

import pytest
import torch

from fastfcn_pl.models.layers import DepthwiseConv, SeparableConv


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


def test_separable_conv_keeps_the_size() -> None:
    assert SeparableConv(6, 10, dilation=8)(torch.randn(2, 6, 5, 7)).shape == (2, 10, 5, 7)
