"""Recall by area and width of components, against a flood fill and a search over all pairs of pixels."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from fastfcn_pl.core.types import IGNORE
from fastfcn_pl.evaluation.diagnostics.components import Components
from tests.fakes.masks import CLASSES, NO_CONFIDENCE, batches

AREAS, WIDTHS = [1, 8, 30, 100], [1, 2, 4, 8]


def _flood(labels: np.ndarray, start: tuple[int, int]) -> set[tuple[int, int]]:
    found, waiting = {start}, [start]
    while waiting:
        y, x = waiting.pop()
        for near in [(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]:
            inside = 0 <= near[0] < labels.shape[0] and 0 <= near[1] < labels.shape[1]
            if inside and near not in found and labels[near] == labels[start]:
                found.add(near)
                waiting.append(near)
    return found


def _width(pixels: set[tuple[int, int]], shape: tuple[int, ...]) -> float:
    outside = [(y, x) for y in range(-1, shape[0] + 1) for x in range(-1, shape[1] + 1) if (y, x) not in pixels]
    return 2 * max(min(math.dist(pixel, other) for other in outside) for pixel in pixels) - 1


def test_recall_equals_a_flood_fill() -> None:
    metric = Components(CLASSES, areas=AREAS, widths=WIDTHS)
    counts = {"area": np.zeros((3, 5)), "width": np.zeros((3, 5))}
    for prediction, target, confidence in batches():
        metric.update(prediction, target, confidence)
        labels, seen = target[0].numpy(), set()
        for start in map(tuple, np.argwhere(labels != IGNORE).tolist()):
            if start in seen:
                continue
            pixels = _flood(labels, start)
            seen |= pixels
            right = sum(int(prediction[0, y, x] == labels[start]) for y, x in pixels)
            for name, size, edges in (("area", len(pixels), AREAS), ("width", _width(pixels, labels.shape), WIDTHS)):
                place = next((i for i, edge in enumerate(edges) if size <= edge), 4)
                counts[name][:, place] += right, len(pixels), 1
    findings = metric.compute()
    for name, (right, pixels, number) in counts.items():
        assert (number > 0).all()
        assert list(findings.scores[f"recall by {name}"].values()) == (right / pixels).tolist()
        assert list(findings.details[f"components by {name}"].values()) == number.tolist()


@pytest.mark.parametrize("thickness", [1, 2, 3, 4, 7, 8, 9])
@pytest.mark.parametrize("length", [20, 60])
def test_a_line_is_as_wide_as_it_is_thick_whatever_its_length(thickness: int, length: int) -> None:
    labels = torch.zeros(1, 64, 64, dtype=torch.uint8)
    labels[0, 20 : 20 + thickness, 2 : 2 + length] = 1
    metric = Components(2, areas=[1], widths=[2, 4, 8, 16])
    metric.update(torch.ones(1, 64, 64, dtype=torch.int64), labels, NO_CONFIDENCE)
    found = metric.compute().scores["recall by width"]
    assert found[{1: "0-2", 2: "0-2", 3: "2-4", 4: "2-4", 7: "4-8", 8: "4-8", 9: "8-16"}[thickness] + " px"] == 1.0
