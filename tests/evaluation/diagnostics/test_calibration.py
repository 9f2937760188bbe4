"""Expected calibration error against torchmetrics and against a loop over bins."""

from __future__ import annotations

import math

import pytest
import torch
from torchmetrics.classification import MulticlassCalibrationError

from fastfcn_pl.core.types import IGNORE, UserError
from fastfcn_pl.evaluation.diagnostics.calibration import Calibration
from fastfcn_pl.evaluation.score_map import ScoreMap
from tests.fakes.masks import CLASSES, batches


@pytest.mark.parametrize("bins", [1, 10, 15])
def test_it_equals_that_of_torchmetrics(bins: int) -> None:
    ours, theirs = Calibration(CLASSES, bins=bins), MulticlassCalibrationError(CLASSES, bins, ignore_index=IGNORE)
    generator = torch.Generator().manual_seed(0)
    for _, target, _ in batches():
        if (target == IGNORE).all():
            continue
        logits = 2 * torch.randn(1, CLASSES, *target.shape[1:], generator=generator)
        labels, confidence = ScoreMap.of(logits).labels_and_confidence()
        ours.update(labels, target, confidence)
        theirs.update(logits.softmax(1), target.long())
    assert ours.compute().scores["ECE"] == {f"{bins} bins": pytest.approx(theirs.compute().item(), abs=1e-6)}


def test_bins_and_classes_equal_a_loop() -> None:
    bins, metric = 4, Calibration(CLASSES, bins=4)
    pixels: list[tuple[int, int, bool, float]] = []
    for prediction, target, confidence in batches():
        metric.update(prediction, target, confidence)
        for label, truth, sure in zip(prediction.ravel(), target.ravel(), confidence.ravel(), strict=True):
            if truth != IGNORE:
                pixels.append((int(label), min(int(sure * bins), bins - 1), bool(label == truth), float(sure)))
    findings = metric.compute()

    def gap(members: list[tuple[int, int, bool, float]]) -> float:
        """Return the ECE of pixels, from the definition."""
        total = 0.0
        for i in range(bins):
            inside = [p for p in members if p[1] == i]
            total += abs(sum(p[2] for p in inside) - sum(p[3] for p in inside))
        return total / len(members) if members else math.nan

    assert findings.scores["ECE"]["4 bins"] == pytest.approx(gap(pixels), abs=1e-6)
    for c, found in enumerate(findings.classes["ECE"]):
        assert found == pytest.approx(gap([p for p in pixels if p[0] == c]), abs=1e-6)
    for i, name in enumerate(["0.00-0.25", "0.25-0.50", "0.50-0.75", "0.75-1.00"]):
        inside = [p for p in pixels if p[1] == i]
        assert findings.details["accuracy"][name] == sum(p[2] for p in inside) / len(inside)
        assert findings.details["confidence"][name] == pytest.approx(sum(p[3] for p in inside) / len(inside))
        assert findings.details["share"][name] == len(inside) / len(pixels)


def test_the_sum_does_not_depend_on_the_order() -> None:
    one, other = Calibration(CLASSES, bins=15), Calibration(CLASSES, bins=15)
    for batch in batches():
        one.update(*batch)
    for batch in reversed(list(batches())):
        other.update(*batch)
    assert (one.counts == other.counts).all()


def test_full_confidence_is_in_the_last_bin_and_a_class_that_is_never_predicted_has_no_error() -> None:
    metric = Calibration(3, bins=10)
    metric.update(torch.tensor([[[0, 1]]]), torch.tensor([[[0, 0]]]), torch.ones(1, 1, 2))
    assert metric.compute().classes["ECE"][:2] == [0.0, 1.0]
    assert math.isnan(metric.compute().classes["ECE"][2])
    with pytest.raises(UserError, match=r"diagnostics.calibration.bins=0: give 1 or more"):
        Calibration(3, bins=0)
