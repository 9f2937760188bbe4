"""The network that is shipped computes what the trained one does."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from omegaconf import DictConfig
from torch import nn

from fastfcn_pl.acceleration.fold import IntervalPool, fold
from fastfcn_pl.config import build
from tests.conftest import TINY
from tests.fakes.network import fill_statistics

HEADS = ["fcn", "psp", "aspp", "encnet", "aspp_plus", "uper"]


@pytest.mark.parametrize("side", [1, 2, 3, 6])
@pytest.mark.parametrize("size", [(1, 1), (4, 7), (6, 6), (13, 5), (60, 33)])
def test_an_interval_pool_is_the_adaptive_one(side: int, size: tuple[int, int]) -> None:
    x = torch.randn(2, 5, *size, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(IntervalPool(side)(x), nn.AdaptiveAvgPool2d(side)(x))


@pytest.mark.parametrize("head", HEADS)
def test_logits_are_the_same_and_norms_and_what_only_trains_are_gone(
    head: str, make_config: Callable[..., DictConfig]
) -> None:
    cfg = make_config(*TINY, "data=shapes", f"model/head={head}")
    torch.manual_seed(0)
    model = build.module(cfg, build.datamodule(cfg).spec).model.eval()
    fill_statistics(model)
    shipped, x = fold(model), torch.randn(2, 3, 65, 97)
    with torch.no_grad():
        expected, found = model(x).logits, shipped(x, extras=True)
    assert (found.logits - expected).abs().max() < 1e-4 * expected.std()
    assert found.extras == {}
    assert not any(isinstance(module, nn.BatchNorm2d) for module in shipped.modules())
    assert any(isinstance(module, nn.BatchNorm2d) for module in model.modules()), "the copy alone is changed"
