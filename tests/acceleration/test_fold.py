"""Parts that only a folded network has compute what torch's do."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fastfcn_pl.acceleration.fold import IntervalPool


@pytest.mark.parametrize("size", [1, 2, 3, 6, (2, 5), (None, 4), (3, None)])
@pytest.mark.parametrize("shape", [(1, 1), (4, 7), (6, 6), (13, 5), (60, 33)])
def test_an_interval_pool_is_the_adaptive_one(
    size: int | tuple[int | None, int | None], shape: tuple[int, int]
) -> None:
    x, pool = torch.randn(2, 5, *shape, generator=torch.Generator().manual_seed(0)), nn.AdaptiveAvgPool2d(size)
    torch.testing.assert_close(IntervalPool(size)(x), pool(x))
    torch.testing.assert_close(IntervalPool(size)(x[0]), pool(x[0]))
