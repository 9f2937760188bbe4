"""Fine-grained mIoU against loops over images and classes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from fastfcn_pl.core.types import IGNORE, UserError
from fastfcn_pl.evaluation.diagnostics.fine_grained import FineGrained, fine_grained
from tests.fakes.masks import CLASSES, batches


def _iou(labels: np.ndarray, prediction: np.ndarray, c: int) -> float | None:
    """Return the IoU of a class in an image; None if it is not in the labels."""
    labelled = labels != IGNORE
    true, predicted = (labels == c) & labelled, (prediction == c) & labelled
    return (true & predicted).sum() / (true | predicted).sum() if true.any() else None


@pytest.mark.parametrize("percent", [10, 34, 100])
def test_it_equals_loops_over_images_and_classes(percent: int) -> None:
    metric, table = FineGrained(CLASSES, worst_percent=percent), []
    for prediction, target, confidence in batches():
        metric.update(prediction, target, confidence)
        table.append([_iou(target[0].numpy(), prediction[0].numpy(), c) for c in range(CLASSES)])
    images = [np.mean([x for x in row if x is not None]) for row in table if any(x is not None for x in row)]
    classes = [[row[c] for row in table if row[c] is not None] for c in range(CLASSES)]

    def worst(values: list[float]) -> float:
        return np.mean(sorted(values)[: max(1, len(values) * percent // 100)])

    findings = metric.compute()
    assert findings.scores["mIoU"] == pytest.approx(
        {
            "mIoU^I": np.mean(images),
            "mIoU^C": np.mean([np.mean(values) for values in classes if values]),
            f"mIoU^I of the worst {percent} %": worst(images),
            f"mIoU^C of the worst {percent} %": np.mean([worst(values) for values in classes if values]),
        },
        rel=1e-14,
    )
    np.testing.assert_allclose(findings.classes["mean IoU of an image"], [np.mean(v) if v else np.nan for v in classes])


def test_the_order_of_the_images_does_not_change_a_bit() -> None:
    counts = np.random.default_rng(0).integers(1, 1000, (200, 3, 7))
    counts[:, 0] = counts.min(1)
    assert fine_grained(counts, 10).scores == fine_grained(counts[::-1], 10).scores


def test_one_class_and_no_labelled_image() -> None:
    metric = FineGrained(1, worst_percent=10)
    assert math.isnan(metric.compute().scores["mIoU"]["mIoU^I"])
    metric.update(
        torch.zeros(2, 3, 3, dtype=torch.int64), torch.tensor([0, IGNORE]).repeat(9).view(2, 3, 3), torch.ones(1)
    )
    assert metric.compute().scores["mIoU"]["mIoU^I of the worst 10 %"] == 1.0
    with pytest.raises(UserError, match="worst_percent=0: give 1 to 100"):
        FineGrained(1, worst_percent=0)
