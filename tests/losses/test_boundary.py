"""The boundary loss against a naive one that compares every pixel with every other, with ignored pixels."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import ndimage

from fastfcn_pl.core.types import IGNORE
from fastfcn_pl.losses.boundary import Boundary, signed_distances

CLASSES = 5


def _random(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return logits and labels of two images with blobs: one lacks classes, and one is ignored in every third seed."""
    rng = torch.Generator().manual_seed(seed)
    blobs = torch.randint(0, CLASSES - 1, (2, 3, 4), generator=rng, dtype=torch.uint8)
    target = blobs.repeat_interleave(3, 1).repeat_interleave(2, 2)
    target[torch.rand(target.shape, generator=rng) < 0.2] = IGNORE
    target[0, 2:5, 1:6], target[0, target[0] == 2] = IGNORE, IGNORE
    if seed % 3 == 0:
        target[1] = IGNORE
    return torch.randn(2, CLASSES, *target.shape[1:], generator=rng, dtype=torch.float64), target


def _nearest(pixel: tuple[int, int], others: list[tuple[int, int]]) -> float:
    return min(math.dist(pixel, other) for other in others)


def _naive(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    total, count = logits.new_zeros(()), 0
    for scores, image in zip(logits, target.tolist(), strict=True):
        label = {(y, x): c for y, row in enumerate(image) for x, c in enumerate(row) if c != IGNORE}
        count += len(label)
        for c in set(label.values()):
            inside, outside = ([p for p in label if (label[p] == c) == wanted] for wanted in (True, False))
            for y, x in label:
                distance = _nearest((y, x), inside)
                if distance == 0 and outside:
                    distance = 1 - _nearest((y, x), outside)
                total = total + scores[:, y, x].softmax(0)[c] * distance
    return total / max(count, 1)


@pytest.mark.parametrize("seed", range(6))
def test_value_and_gradient_are_those_of_the_definition(seed: int) -> None:
    logits, target = _random(seed)
    ours, naive = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    loss, expected = Boundary()(ours, target, True), _naive(naive, target)
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=1e-6)
    loss.backward()
    expected.backward()
    torch.testing.assert_close(ours.grad, naive.grad, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("seed", range(4))
def test_distances_without_ignored_pixels_are_those_of_the_published_code(seed: int) -> None:
    target = np.random.default_rng(seed).integers(0, 3, (2, 17, 23)).astype(np.uint8)
    target[0, 3:9, 4:15] = 0
    images, classes, distances = signed_distances(target)
    assert list(zip(images, classes, strict=True)) == [(b, c) for b in range(2) for c in range(3)]
    for b, c, signed in zip(images, classes, distances, strict=True):
        region = target[b] == c
        outside, inside = ndimage.distance_transform_edt(~region), ndimage.distance_transform_edt(region)
        np.testing.assert_allclose(signed, outside - (inside - 1) * region, rtol=1e-6)


def test_a_region_has_no_boundary_with_ignored_pixels() -> None:
    row = np.array([[[0, 0, 0, IGNORE, IGNORE, 0, 0, 1, IGNORE]]], np.uint8)
    _, _, (zero, one) = signed_distances(row)
    labelled = row[0] != IGNORE
    assert zero[labelled].tolist() == [-6, -5, -4, -1, 0, 1]
    assert one[labelled].tolist() == [7, 6, 5, 2, 1, 0]


@pytest.mark.parametrize("ignored", [0, 7])
def test_the_only_class_of_an_image_has_no_boundary(ignored: int) -> None:
    target = np.zeros((1, 5, 6), np.uint8)
    target[0, :2, :ignored] = IGNORE
    images, classes, distances = signed_distances(target)
    assert (images, classes) == ([0], [0])
    assert not distances[0, target[0] == 0].any()


def test_what_lies_under_ignored_pixels_does_not_matter() -> None:
    logits, target = _random(1)
    expected = Boundary()(logits, target, True)
    logits.movedim(1, -1)[target == IGNORE] = torch.nan
    torch.testing.assert_close(Boundary()(logits, target, True), expected, rtol=0, atol=0)


def test_a_prediction_further_from_the_region_costs_more() -> None:
    target = torch.zeros(1, 8, 8, dtype=torch.uint8)
    target[:, :, :4] = 1
    losses = []
    for columns in (4, 6, 8):
        logits = torch.zeros(1, 2, 8, 8)
        logits[:, 1, :, :columns], logits[:, 0, :, columns:] = 9, 9
        losses.append(Boundary()(logits, target, True).item())
    assert losses == sorted(losses)
    assert losses[0] < losses[2]
