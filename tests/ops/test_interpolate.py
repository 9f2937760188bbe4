"""Rows of a resize, against torch's resize of the whole."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fastfcn_pl.ops.interpolate import resize_rows, source_rows

SIZES = [
    ((1, 1), (7, 5)),
    ((5, 4), (1, 1)),
    ((9, 7), (71, 50)),
    ((64, 3), (20, 9)),
    ((6, 6), (6, 11)),
    ((13, 5), (14, 5)),
]


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize(("source", "target"), SIZES)
def test_any_rows_are_those_of_the_whole(source: tuple[int, int], target: tuple[int, int], align_corners: bool) -> None:
    x = torch.randn(2, 3, *source, generator=torch.Generator().manual_seed(0))
    whole = F.interpolate(x, target, mode="bilinear", align_corners=align_corners).permute(0, 2, 3, 1)
    rng = np.random.default_rng(0)
    for _ in range(10):
        first = int(rng.integers(target[0]))
        rows = range(first, int(rng.integers(first, target[0])) + 1)
        needed = source_rows(rows, source[0], target[0], align_corners)
        assert 0 <= needed.start < needed.stop <= source[0]
        part = x.permute(0, 2, 3, 1)[:, needed.start : needed.stop]
        actual = resize_rows(part, rows, source[0], *target, align_corners)
        torch.testing.assert_close(actual, whole[:, first : rows.stop], rtol=1e-5, atol=1e-6)


def test_a_band_needs_few_rows() -> None:
    assert source_rows(range(800, 816), 1000, 8000, align_corners=False) == range(99, 103)
