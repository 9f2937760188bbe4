"""Agreement of a network's confidence with its accuracy."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastfcn_pl.core.types import IGNORE, UserError
from fastfcn_pl.evaluation.diagnostics.charts import reliability
from fastfcn_pl.evaluation.diagnostics.diagnostic import Diagnostic, Findings, ratios

_UNIT = 2**24
"""Confidence is added in multiples of 1 / _UNIT, the precision of float32, so that sums do not depend on the order."""


class Calibration(Diagnostic):
    """Expected calibration error (Guo et al., arXiv 1706.04599, equation 3) of the predicted labels.

    Pixels are sorted into `bins` of equal width by the probability of their predicted class. The error is the mean
    distance between accuracy and mean confidence of a bin, weighted by its pixels. Pixels of a class are those that are
    predicted as it.
    """

    counts: Tensor

    def __init__(self, num_classes: int, *, bins: int) -> None:
        super().__init__(num_classes)
        if bins < 1:
            raise UserError(f"diagnostics.calibration.bins={bins}: give 1 or more, such as 15")
        self.bins = bins
        shape = 3, num_classes, bins  # pixels, correct ones, sum of the confidence in units
        self.add_state("counts", torch.zeros(shape, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, prediction: Tensor, target: Tensor, confidence: Tensor) -> None:
        labelled = target != IGNORE
        predicted, sure = prediction[labelled], confidence[labelled]
        edges = torch.linspace(0, 1, self.bins + 1, device=sure.device)
        places = predicted * self.bins + torch.bucketize(sure, edges[1:-1], right=True)
        units = (sure.double() * _UNIT).round().long()
        for counts, weights in zip(
            self.counts, (torch.ones_like(units), (predicted == target[labelled]).long(), units), strict=True
        ):
            counts.view(-1).index_add_(0, places, weights)

    def compute(self) -> Findings:
        pixels, correct, units = self.counts
        gaps = (correct.double() - units.double() / _UNIT).abs().sum(1) / pixels.sum(1)
        pixels, correct, units = self.counts.sum(1)
        gap = (correct.double() - units.double() / _UNIT).abs().sum() / pixels.sum()
        names = [f"{i / self.bins:.2f}-{(i + 1) / self.bins:.2f}" for i in range(self.bins)]
        details = {
            "accuracy": ratios(names, correct, pixels),
            "confidence": ratios(names, units.double() / _UNIT, pixels),
            "share": ratios(names, pixels, pixels.sum()),
        }
        return Findings({"ECE": {f"{self.bins} bins": gap.item()}}, details, {"ECE": gaps.tolist()})

    def chart(self, findings: Findings) -> Any:
        ((name, error),) = findings.scores["ECE"].items()
        return reliability(findings.details, f"ECE {100 * error:.2f} %, {name}")
