"""A batch norm folded into the convolution behind it computes what both do, one after the other."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from fastfcn_pl.models import layers
from fastfcn_pl.models.convolutions import PointwiseConv, substitute
from fastfcn_pl.models.folded import conv_of_normalized, foldable
from fastfcn_pl.models.layers import SeparableConv


def _norm(momentum: float | None = 0.1) -> nn.BatchNorm2d:
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(6, momentum=momentum)
    nn.init.uniform_(norm.weight, -2, 2)
    nn.init.normal_(norm.bias)
    return norm


@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("offset", [0.0, 10.0])
def test_outputs_gradients_and_statistics_are_the_plain_ones(momentum: float | None, offset: float) -> None:
    plain, conv = _norm(momentum), nn.Conv2d(6, 10, 1, bias=False)
    folded = copy.deepcopy(plain)
    for _ in range(3):
        x = (3 * torch.randn(2, 6, 13, 16) + offset).requires_grad_()
        outputs = conv(plain(x)), conv_of_normalized(folded, conv, x)
        torch.testing.assert_close(outputs[1], outputs[0], atol=1e-5, rtol=1e-5)
        weights = torch.randn_like(outputs[0])
        found = [
            torch.autograd.grad((y * weights).sum(), [x, conv.weight, *norm.parameters()])
            for y, norm in zip(outputs, (plain, folded), strict=True)
        ]
        for expected, gradient in zip(*found, strict=True):
            torch.testing.assert_close(gradient, expected, atol=1e-4, rtol=1e-4)
    for (name, expected), statistic in zip(plain.named_buffers(), folded.buffers(), strict=True):
        torch.testing.assert_close(statistic, expected, msg=name)


def test_a_branch_of_jpu_folds_while_it_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def fold(*args: nn.BatchNorm2d | nn.Conv2d | Tensor) -> Tensor:
        calls.append(args)
        return conv_of_normalized(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(layers, "conv_of_normalized", fold)
    torch.manual_seed(0)
    plain, x = SeparableConv(6, 10, dilation=2), torch.randn(2, 6, 9, 11)
    branch = copy.deepcopy(plain)
    substitute(branch, PointwiseConv.like)
    torch.testing.assert_close(branch(x), plain(x), atol=1e-5, rtol=1e-5)
    assert len(calls) == 1, "a plain branch does not fold"
    torch.testing.assert_close(branch.eval()(x), plain.eval()(x))
    with torch.no_grad():
        branch.train()(x)
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("norm", "change"),
    [
        (nn.GroupNorm(2, 6), None),
        (nn.SyncBatchNorm(6), None),
        (nn.BatchNorm2d(6, affine=False), None),
        (nn.BatchNorm2d(6, track_running_stats=False), None),
        (nn.BatchNorm2d(6).eval(), None),
        (nn.BatchNorm2d(6), lambda norm, conv: norm.register_forward_hook(lambda *_: None)),
        (nn.BatchNorm2d(6), lambda norm, conv: conv.register_forward_pre_hook(lambda *_: None)),
    ],
)
def test_others_are_left_as_they_are(norm: nn.Module, change: Callable[..., object] | None) -> None:
    conv = nn.Conv2d(6, 10, 1, bias=False)
    if change is not None:
        change(norm, conv)
    x = torch.randn(2, 6, 1, 1)
    assert not foldable(norm, conv, x)
    assert foldable(nn.BatchNorm2d(6), nn.Conv2d(6, 10, 1, bias=False), x)
    assert not foldable(nn.BatchNorm2d(6), nn.Conv2d(6, 10, 1, bias=False), x[:1])
    assert not foldable(nn.BatchNorm2d(6), nn.Conv2d(6, 10, 1), x)
