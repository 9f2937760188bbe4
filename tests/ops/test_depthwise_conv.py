"""Depthwise convolutions by phases on a CPU equal torch's own, map and gradients."""

from __future__ import annotations

import pytest
import torch

from fastfcn_pl.ops import depthwise_conv as op
from fastfcn_pl.ops.depthwise_conv import depthwise_conv, reference
from fastfcn_pl.ops.fast_paths import without


@pytest.mark.parametrize("size", [(24, 32), (23, 30), (3, 5), (1, 1)])
@pytest.mark.parametrize(("kernel", "dilation"), [(3, 1), (3, 2), (3, 8), (5, 4), (7, 3)])
@pytest.mark.parametrize("biased", [True, False])
def test_it_is_the_plain_one(size: tuple[int, int], kernel: int, dilation: int, biased: bool) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 6, *size).contiguous(memory_format=torch.channels_last).requires_grad_()
    weight, bias = torch.randn(6, 1, kernel, kernel).requires_grad_(), torch.randn(6).requires_grad_()
    leaves = (x, weight, bias) if biased else (x, weight)
    arguments = x, weight, bias if biased else None, dilation
    plain, actual = reference(*arguments), depthwise_conv(*arguments)
    torch.testing.assert_close(actual, plain, atol=1e-5, rtol=1e-5)
    factors = torch.randn_like(plain)
    gradients = (torch.autograd.grad((y * factors).sum(), leaves) for y in (actual, plain))
    for gradient, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(gradient, expected, atol=1e-4, rtol=1e-3)
    with torch.no_grad():
        torch.testing.assert_close(depthwise_conv(*arguments), plain, atol=1e-5, rtol=1e-5)


def test_phases_are_for_gradients_in_channels_last(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    monkeypatch.setattr(op, "_in_phases", lambda x, weight, bias, dilation: calls.append(dilation) or x)
    x, weight = torch.randn(1, 4, 6, 8), torch.randn(4, 1, 3, 3, requires_grad=True)
    last = x.contiguous(memory_format=torch.channels_last)
    depthwise_conv(last, weight, None, 2)
    assert calls == [2]
    depthwise_conv(x, weight, None, 2)
    depthwise_conv(last, weight, None, 1)
    depthwise_conv(last, weight.detach(), None, 2)
    with torch.no_grad():
        depthwise_conv(last, weight, None, 2)
    with without("phased depthwise"):
        depthwise_conv(last, weight, None, 2)
    assert calls == [2]
