"""Gradients of second order through the layers whose backward pass is ours equal those of torch's own layers."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fastfcn_pl.acceleration.cpu.blockwise_separable_conv import separable_conv
from fastfcn_pl.acceleration.cpu.cpu_convs import PointwiseConv, WideConv
from fastfcn_pl.acceleration.cpu.recompute_norm_relu import LeanMaxPool2d, LeanReLU, norm_relu_conv
from fastfcn_pl.ops.depthwise_conv import DepthwiseConv


class _Row(nn.Module):
    """Layers that `run` computes in its own way."""

    def __init__(self, run: Callable[..., Tensor], *layers: nn.Module) -> None:
        super().__init__()
        self.run, self.layers = run, nn.ModuleList(layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.run(x, *self.layers)


def _plain(x: Tensor, *layers: nn.Module) -> Tensor:
    for layer in layers:
        x = layer(x)
    return x


def _rows() -> dict[str, tuple[nn.Module, nn.Module, int]]:
    """Return a fast layer, torch's own with the same weights, and the channels of their input, by name."""
    dense = nn.Conv2d(6, 4, 3, padding=1, bias=False)
    wide, pointwise = nn.Conv2d(256, 256, 3, padding=1), nn.Conv2d(6, 4, 1)
    norm, relu = nn.BatchNorm2d(6), nn.ReLU(inplace=True)
    depthwise = DepthwiseConv(6, 2)
    plain_depthwise = nn.Conv2d(6, 6, 3, padding=2, dilation=2, groups=6, bias=False)
    plain_depthwise.weight = depthwise.weight
    product = PointwiseConv(6, 4, 1, bias=False)
    plain_product = nn.Conv2d(6, 4, 1, bias=False)
    plain_product.weight = product.weight
    rows: dict[str, tuple[Any, Any, int]] = {
        "wide": (WideConv.like(wide), wide, 256),
        "pointwise": (PointwiseConv.like(pointwise), pointwise, 6),
        "depthwise": (depthwise, plain_depthwise, 6),
        "relu": (LeanReLU(), nn.ReLU(), 6),
        "pool": (LeanMaxPool2d(3, stride=2, padding=1), nn.MaxPool2d(3, stride=2, padding=1), 6),
        "norm, relu, convolution": (_Row(norm_relu_conv, norm, relu, dense), _Row(_plain, norm, relu, dense), 6),
        "separable": (
            _Row(separable_conv, depthwise, norm, product),
            _Row(_plain, plain_depthwise, norm, plain_product),
            6,
        ),
    }
    return {
        name: (fast.train(), copy.deepcopy(plain).train(), channels) for name, (fast, plain, channels) in rows.items()
    }


@pytest.mark.parametrize("constant", [True, False], ids=["constant gradient", "gradient with a gradient"])
@pytest.mark.parametrize("name", list(_rows()))
def test_gradients_of_second_order_are_torchs(name: str, constant: bool) -> None:
    torch.manual_seed(0)
    fast, plain, channels = _rows()[name]
    plain.load_state_dict(fast.state_dict())
    x = torch.randn(2, channels, 16, 16) if channels == 6 else torch.randn(8, channels, 28, 28)
    found = []
    for layer in (fast, plain):
        leaf = x.clone().requires_grad_()
        out = layer(leaf * 1)
        loss = out.sum() if constant else (out * out.sin()).mean()
        inputs = [leaf, *layer.parameters()]
        gradients = torch.autograd.grad(loss, inputs, create_graph=True)
        penalty = sum((g * torch.linspace(-1, 1, g.numel()).view_as(g)).square().sum() for g in gradients)
        second = [None] * len(inputs)  # as of a ReLU's constant gradient, which depends on nothing
        if penalty.requires_grad:
            second = torch.autograd.grad(penalty, inputs, allow_unused=True)
        found.append(
            [*gradients, *(torch.zeros_like(i) if g is None else g for g, i in zip(second, inputs, strict=True))]
        )
    for ours, theirs in zip(*found, strict=True):
        assert (ours - theirs).abs().max() <= 1e-3 * theirs.abs().max().clamp(min=1e-3)
