"""A separable convolution by blocks of channels computes what its three layers do, one after the other."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from fastfcn_pl.acceleration.cpu import blockwise_separable_conv
from fastfcn_pl.acceleration.cpu.batch_norm_stats import learns_plainly
from fastfcn_pl.acceleration.cpu.blockwise_separable_conv import separable_conv
from fastfcn_pl.acceleration.cpu.cpu_convs import PointwiseConv, substitute
from fastfcn_pl.models import layers as necks
from fastfcn_pl.models.layers import SeparableConv
from fastfcn_pl.ops.depthwise_conv import DepthwiseConv


def _layers(channels: int, dilation: int = 2, momentum: float | None = 0.1) -> nn.Sequential:
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(channels, momentum=momentum)
    nn.init.uniform_(norm.weight, -2, 2)
    nn.init.normal_(norm.bias)
    return nn.Sequential(DepthwiseConv(channels, dilation), norm, PointwiseConv(channels, 10, 1, bias=False))


@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("offset", [0.0, 10.0])
@pytest.mark.parametrize(("channels", "dilation"), [(6, 1), (7, 2), (40, 8)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_outputs_gradients_and_statistics_are_the_plain_ones(
    momentum: float | None,
    offset: float,
    channels: int,
    dilation: int,
    dtype: torch.dtype,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(blockwise_separable_conv, "_CHANNELS", 16)
    monkeypatch.setattr("fastfcn_pl.ops.depthwise_conv._CACHE", 1)  # tiles as small as can be
    plain = _layers(channels, dilation, momentum).to(dtype)
    blocks = copy.deepcopy(plain)
    tolerance = 1e-5 if dtype == torch.float32 else 1e-12
    for _ in range(3):
        x = (3 * torch.randn(2, channels, 13, 16, dtype=dtype) + offset).requires_grad_()
        outputs = plain(x), separable_conv(x, *blocks)
        assert _name(outputs[1]) == "_SeparableConvBackward"
        torch.testing.assert_close(outputs[1], outputs[0], atol=tolerance, rtol=tolerance)
        weights = torch.randn_like(outputs[0])
        found = [
            torch.autograd.grad((y * weights).sum(), [x, *layers.parameters()])
            for y, layers in zip(outputs, (plain, blocks), strict=True)
        ]
        for expected, gradient in zip(*found, strict=True):
            torch.testing.assert_close(gradient, expected, atol=10 * tolerance, rtol=10 * tolerance)
    for (name, expected), statistic in zip(plain.named_buffers(), blocks.buffers(), strict=True):
        torch.testing.assert_close(statistic, expected, msg=name)


def test_a_branch_of_jpu_goes_by_blocks_while_it_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    names = []

    def watched(x: Tensor, *parts: nn.Module) -> Tensor:
        out = separable_conv(x, *parts)
        names.append(_name(out))
        return out

    monkeypatch.setattr(necks, "separable_conv", watched)
    torch.manual_seed(0)
    plain, x = SeparableConv(6, 10, dilation=2), torch.randn(2, 6, 9, 11)
    branch = copy.deepcopy(plain)
    substitute(branch, PointwiseConv.like)
    torch.testing.assert_close(branch(x), plain(x), atol=1e-5, rtol=1e-5)
    assert names.count("_SeparableConvBackward") == 1, "a plain branch does not go by blocks"
    torch.testing.assert_close(branch.eval()(x), plain.eval()(x))
    with torch.no_grad():
        torch.testing.assert_close(branch.train()(x), plain.train()(x), atol=1e-5, rtol=1e-5)
    assert names.count("_SeparableConvBackward") == 1
    for a, b in zip(branch.buffers(), plain.buffers(), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize(
    "change",
    [
        lambda layers: layers.__setitem__(1, nn.GroupNorm(2, 6)),
        lambda layers: layers.__setitem__(1, nn.SyncBatchNorm(6)),
        lambda layers: layers.__setitem__(1, nn.BatchNorm2d(6, affine=False)),
        lambda layers: layers.__setitem__(1, nn.BatchNorm2d(6, track_running_stats=False)),
        lambda layers: layers[1].eval(),
        lambda layers: layers[1].register_forward_hook(lambda *_: None),
        lambda layers: layers[2].register_forward_pre_hook(lambda *_: None),
        lambda layers: layers[0].requires_grad_(False),
        lambda layers: layers.__setitem__(0, DepthwiseConv(6, 2, bias=True)),
        lambda layers: layers.__setitem__(2, PointwiseConv(6, 10, 1)),
        lambda layers: layers.__setitem__(2, nn.Conv2d(6, 10, 1, bias=False)),
    ],
)
def test_others_are_left_as_they_are(change: Callable[[nn.Sequential], object]) -> None:
    layers, x = _layers(6), torch.randn(2, 6, 9, 11)
    assert _name(separable_conv(x, *layers)) == "_SeparableConvBackward"
    change(layers)
    assert _name(separable_conv(x, *layers)) != "_SeparableConvBackward"


def test_one_pixel_has_no_variance() -> None:
    norm = nn.BatchNorm2d(6)
    assert learns_plainly(norm, torch.randn(2, 6, 1, 1))
    assert not learns_plainly(norm, torch.randn(1, 6, 1, 1))


def _name(out: Tensor) -> str:
    """Return the name of the function that made a map, behind views of it."""
    node = out.grad_fn
    while node is not None and "View" in type(node).__name__:
        node = node.next_functions[0][0]
    return type(node).__name__
