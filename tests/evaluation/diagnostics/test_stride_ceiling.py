"""Ceilings of a stride against loops over cells and pixels, and against a general optimizer."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fastfcn_pl.core.types import IGNORE, UserError
from fastfcn_pl.evaluation.diagnostics.stride_ceiling import StrideCeiling, fit, restore
from tests.fakes.masks import CLASSES, NO_CONFIDENCE, batches, masks


def _shares(labels: np.ndarray, stride: int) -> np.ndarray:
    """Return the classes' shares of each cell; cells divide the image evenly and overlap if its size is no multiple."""
    height, width = (-(-side // stride) for side in labels.shape)
    shares = np.zeros((CLASSES, height, width))
    for i in range(height):
        for j in range(width):
            top, left = i * labels.shape[0] // height, j * labels.shape[1] // width
            bottom, right = -(-(i + 1) * labels.shape[0] // height), -(-(j + 1) * labels.shape[1] // width)
            cell = labels[top:bottom, left:right]
            for c in range(CLASSES):
                shares[c, i, j] = (cell == c).sum() / max((cell != IGNORE).sum(), 1)
    return shares


def _interpolated(shares: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    height, width = shares.shape[1:]
    restored = np.zeros((CLASSES, *size))
    for y in range(size[0]):
        for x in range(size[1]):
            v = min(max((y + 0.5) * height / size[0] - 0.5, 0), height - 1)
            u = min(max((x + 0.5) * width / size[1] - 0.5, 0), width - 1)
            i, j = int(v), int(u)
            below, beside = min(i + 1, height - 1), min(j + 1, width - 1)
            upper = (1 - (u - j)) * shares[:, i, j] + (u - j) * shares[:, i, beside]
            lower = (1 - (u - j)) * shares[:, below, j] + (u - j) * shares[:, below, beside]
            restored[:, y, x] = (1 - (v - i)) * upper + (v - i) * lower
    return restored


@pytest.mark.parametrize("stride", [1, 2, 4, 8])
def test_reduced_labels_equal_loops(stride: int) -> None:
    metric = StrideCeiling(CLASSES, strides=[stride], fit_steps=0)
    matrix, doubtful = np.zeros((CLASSES, CLASSES), int), 0
    for prediction, target, confidence in batches():
        metric.update(prediction, target, confidence)
        labels = target[0].numpy()
        scores = _interpolated(_shares(labels, stride), labels.shape)
        highest = np.sort(scores, 0)[-2:]
        doubtful += ((highest[1] - highest[0] < 1e-5) & (labels != IGNORE)).sum()  # rounding decides
        for y, x in np.argwhere(labels != IGNORE).tolist():
            matrix[labels[y, x], scores[:, y, x].argmax()] += 1
    difference = np.abs(metric.matrices[0, 0].numpy() - matrix).sum()
    assert matrix.sum() == metric.matrices[0, 0].sum()
    assert difference <= 2 * doubtful
    assert doubtful < 0.06 * matrix.sum()
    if stride == 1:
        assert metric.compute().scores == {"mIoU, reduced": {"stride 1": 1.0}}


@pytest.mark.slow
def test_a_fit_reaches_more_than_averages_and_a_general_optimizer_hardly_improves_it() -> None:
    labels = torch.from_numpy(next(mask for mask in masks() if mask.shape == (24, 31))).long()
    one_hot = torch.stack([(labels == c).float() for c in range(4)])
    steps = [_loss(fit(one_hot, 4, n), labels) for n in (0, 20, 400)]
    assert steps[0] > steps[1] > steps[2]
    scores = fit(one_hot, 4, 400).requires_grad_()
    optimizer = torch.optim.LBFGS([scores], max_iter=100)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = _loss(scores, labels)
        loss.backward()
        return loss

    optimizer.step(closure)  # type: ignore[arg-type]
    assert _loss(scores, labels) > 0.98 * steps[2]

    metric = StrideCeiling(CLASSES, strides=[4], fit_steps=40)
    metric.update(NO_CONFIDENCE, labels[None], NO_CONFIDENCE)
    found = metric.compute()
    assert found.scores["mIoU, fitted"]["stride 4"] > found.scores["mIoU, reduced"]["stride 4"] + 0.1
    assert found.classes["fitted to stride 4"][1] > found.classes["reduced to stride 4"][1]  # a line of one pixel


def _loss(scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the squared hinge loss of Crammer and Singer of interpolated scores."""
    restored = F.interpolate(scores[None], labels.shape, mode="bilinear")[0]
    total = torch.zeros(())
    for c in range(len(restored)):
        own = restored[c][labels == c]
        others = torch.stack([restored[k][labels == c] for k in range(len(restored)) if k != c]).max(0).values
        total = total + (others + 1 - own).clamp(min=0).square().sum()
    return total


def test_images_of_one_class_or_none_are_fitted_exactly() -> None:
    for value, expected in ((2, 1.0), (IGNORE, math.nan)):
        metric = StrideCeiling(CLASSES, strides=[4, 64], fit_steps=3)
        metric.update(NO_CONFIDENCE, torch.full((1, 9, 14), value), NO_CONFIDENCE)
        for score in ("mIoU, reduced", "mIoU, fitted"):
            np.testing.assert_equal(list(metric.compute().scores[score].values()), [expected] * 2)


def test_a_fit_separates_all_that_a_stride_can_separate() -> None:
    scores = torch.randn(3, 5, 6, generator=torch.Generator().manual_seed(1))
    labels = restore(scores, (20, 24))
    one_hot = torch.stack([(labels == c).float() for c in range(3)])
    assert (restore(fit(one_hot, 4, 2000), (20, 24)) == labels).float().mean() > 0.99


@pytest.mark.parametrize(
    ("strides", "steps", "said"), [([0], 0, "strides="), ([], 0, "strides="), ([4], -1, "fit_steps=-1")]
)
def test_impossible_options_are_refused(strides: list[int], steps: int, said: str) -> None:
    with pytest.raises(UserError, match=f"diagnostics.stride_ceiling.{said}"):
        StrideCeiling(2, strides=strides, fit_steps=steps)
