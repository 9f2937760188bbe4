"""Error by the distance to a boundary, against a search over all pairs of pixels."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from fastfcn_pl.core.types import IGNORE, UserError
from fastfcn_pl.evaluation.diagnostics.boundary_bands import BoundaryBands
from tests.fakes.masks import CLASSES, NO_CONFIDENCE, batches

EDGES = [1, 2, 4, 8, 16]


def _nearest_other(labels: np.ndarray, y: int, x: int) -> float:
    others = np.argwhere((labels != labels[y, x]) & (labels != IGNORE))
    return min((math.dist((y, x), other) for other in others.tolist()), default=math.inf)


def test_bands_equal_a_search_over_all_pairs() -> None:
    metric = BoundaryBands(CLASSES, distances=EDGES)
    wrong, pixels = [0] * 6, [0] * 6
    for prediction, target, confidence in batches():
        metric.update(prediction, target, confidence)
        labels = target[0].numpy()
        for y, x in np.argwhere(labels != IGNORE).tolist():
            distance = _nearest_other(labels, y, x)
            band = next((i for i, edge in enumerate(EDGES) if distance <= edge), 5)
            pixels[band] += 1
            wrong[band] += int(prediction[0, y, x] != labels[y, x])
    findings = metric.compute()
    assert list(findings.scores["error by distance"]) == ["0-1 px", "1-2 px", "2-4 px", "4-8 px", "8-16 px", ">16 px"]
    assert list(findings.scores["error by distance"].values()) == [w / p for w, p in zip(wrong, pixels, strict=True)]
    assert list(findings.details["share"].values()) == [p / sum(pixels) for p in pixels]


def test_an_ignored_strip_separates_two_classes_by_its_width() -> None:
    labels = torch.tensor([[0, 0, IGNORE, IGNORE, IGNORE, 1]], dtype=torch.uint8)[None]
    metric = BoundaryBands(2, distances=[3, 4, 5])
    metric.update(torch.zeros(1, 1, 6, dtype=torch.int64), labels, NO_CONFIDENCE)
    error = list(metric.compute().scores["error by distance"].values())
    assert error[1:3] == [0.5, 0.0]  # the outer pixels of both classes are 4 apart, of which that of class 1 is wrong
    assert math.isnan(error[0])


@pytest.mark.parametrize("edges", [[], [0, 1], [2, 1], [1, 1], [-1]])
def test_edges_that_are_no_bands_are_refused(edges: list[int]) -> None:
    with pytest.raises(UserError, match=r"diagnostics.boundary_bands.distances=\[.*: give increasing numbers above 0"):
        BoundaryBands(2, distances=edges)
