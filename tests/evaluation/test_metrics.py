"""Metrics against counting pixel by pixel."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.profiler import profile

from fastfcn_pl.core.types import IGNORE
from fastfcn_pl.evaluation.metrics import ConfusionMatrix, Scores


def _batches(seed: int, classes: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    rng = np.random.default_rng(seed)
    batches = []
    for _ in range(5):
        shape = tuple(rng.integers(3, 20, 3))
        target = rng.integers(0, classes, shape).astype(np.uint8)
        target[rng.random(shape) < 0.2] = IGNORE
        batches.append((torch.from_numpy(rng.integers(0, classes, shape)), torch.from_numpy(target)))
    return batches


@pytest.mark.parametrize("classes", [1, 2, 11, 150])
def test_scores_equal_counting_by_hand(classes: int) -> None:
    batches = _batches(classes, classes)
    metric = ConfusionMatrix(classes)
    for prediction, target in batches:
        metric.update(prediction, target)
    matrix, images = metric.compute()
    scores = Scores.of(matrix)
    assert images == sum(len(target) for _, target in batches)

    prediction = np.concatenate([p.numpy().ravel() for p, _ in batches])
    target = np.concatenate([t.numpy().ravel() for _, t in batches])
    prediction, target = prediction[target != IGNORE], target[target != IGNORE]
    iou = []
    for c in range(classes):
        union = ((prediction == c) | (target == c)).sum()
        iou.append(((prediction == c) & (target == c)).sum() / union if union else np.nan)
    np.testing.assert_allclose(scores.iou, iou)
    assert scores.mean_iou == pytest.approx(np.nanmean(iou))
    assert scores.pixel_accuracy == pytest.approx((prediction == target).mean())
    accuracy = [(prediction[target == c] == c).mean() for c in range(classes) if (target == c).any()]
    assert scores.mean_accuracy == pytest.approx(np.mean(accuracy))
    assert scores.share.sum() == pytest.approx(1)
    dice = [2 * i / (1 + i) for i in iou]  # Dice is a function of IoU
    np.testing.assert_allclose(scores.dice, dice)
    assert scores.mean_dice == pytest.approx(np.nanmean(dice))
    weighted = sum((target == c).mean() * iou[c] for c in range(classes) if (target == c).any())
    assert scores.frequency_weighted_iou == pytest.approx(weighted)


def test_a_class_without_pixels_is_left_out_and_listed() -> None:
    metric = ConfusionMatrix(4)
    metric.update(torch.tensor([[[0, 1, 0]]]), torch.tensor([[[0, 1, 1]]], dtype=torch.uint8))
    scores = Scores.of(metric.compute()[0])
    assert scores.absent == [2, 3]
    assert scores.mean_iou == pytest.approx(0.5)


def test_a_class_that_is_only_predicted_counts_as_zero() -> None:
    metric = ConfusionMatrix(3)
    metric.update(torch.tensor([[[0, 2]]]), torch.tensor([[[0, 0]]], dtype=torch.uint8))
    scores = Scores.of(metric.compute()[0])
    assert scores.absent == [1]
    assert scores.mean_iou == pytest.approx(0.25)
    assert math.isnan(scores.accuracy[2])


def test_ignored_pixels_are_not_counted() -> None:
    metric = ConfusionMatrix(3)
    metric.update(torch.tensor([[[0, 1, 2]]]), torch.full((1, 1, 3), IGNORE, dtype=torch.uint8))
    assert metric.compute()[0].sum() == 0


def test_many_classes_take_little_memory_with_deterministic_algorithms() -> None:
    """A comparison of each pixel with each pair of classes would take a gigabyte."""
    torch.use_deterministic_algorithms(True)
    target = torch.arange(64 * 64).view(1, 64, 64) % 171
    metric = ConfusionMatrix(171)
    with profile(profile_memory=True) as measured:
        metric.update(target.to(torch.uint8), target)
    assert max(event.self_cpu_memory_usage for event in measured.key_averages()) < 2**20
    assert torch.equal(metric.compute()[0].diagonal(), target.flatten().bincount())


def test_counts_beyond_float32_are_exact() -> None:
    metric = ConfusionMatrix(2)
    metric.matrix += 2**30
    metric.update(torch.zeros(1, 1, 1, dtype=torch.int64), torch.zeros(1, 1, 1, dtype=torch.uint8))
    assert metric.compute()[0][0, 0] == 2**30 + 1
