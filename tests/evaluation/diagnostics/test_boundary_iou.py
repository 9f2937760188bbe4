"""Boundary IoU against the erosion of masks."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import ndimage

from fastfcn_pl.core.types import IGNORE, UserError
from fastfcn_pl.evaluation.diagnostics.boundary_iou import BoundaryIoU
from tests.fakes.masks import NO_CONFIDENCE


def _boundary_by_hand(labels: np.ndarray, cls: int, distance: int) -> np.ndarray:
    """Follow the paper's code: pad the mask with zeros and subtract the mask eroded `distance` times."""
    mask = np.pad(labels == cls, 1)
    inner = ndimage.binary_erosion(mask, np.ones((3, 3)), iterations=distance, border_value=1)
    return (mask & ~inner)[1:-1, 1:-1]


@pytest.mark.parametrize(("size", "ratio"), [((40, 61), 0.02), ((40, 61), 0.07), ((7, 90), 0.3)])
def test_boundary_iou_equals_erosion_of_masks(size: tuple[int, int], ratio: float) -> None:
    rng = np.random.default_rng(0)
    target, prediction = (rng.integers(0, 4, (2, size[0] // 5, size[1] // 5)).repeat(6, 1).repeat(6, 2) for _ in "ab")
    target, prediction = target[:, : size[0], : size[1]].copy(), prediction[:, : size[0], : size[1]].copy()
    target[0, 10:14, 3:9] = IGNORE
    metric = BoundaryIoU(5, ratio=ratio)
    for one in zip(prediction, target, strict=True):
        metric.update(*(torch.from_numpy(x)[None] for x in one), NO_CONFIDENCE)
    distance = max(1, round(ratio * np.hypot(*target.shape[1:])))
    for cls in range(4):
        common = either = 0
        for guess, true in zip(np.where(target == IGNORE, IGNORE, prediction), target, strict=True):
            a, b = _boundary_by_hand(guess, cls, distance), _boundary_by_hand(true, cls, distance)
            common, either = common + (a & b).sum(), either + (a | b).sum()
        assert metric.compute().classes["boundary IoU"][cls] == common / either
    assert math.isnan(metric.compute().classes["boundary IoU"][4])
    with pytest.raises(UserError, match=r"diagnostics.boundary_iou.ratio=2: give a share"):
        BoundaryIoU(5, ratio=2)
