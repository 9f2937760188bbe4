"""The interface of a diagnostic: a measurement of a final score beyond its confusion matrix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from torch import Tensor
from torchmetrics import Metric, MetricCollection

from fastfcn_pl.core.types import UserError
from fastfcn_pl.evaluation.score_map import ScoreMap


class Findings(NamedTuple):
    """Results of a diagnostic, NaN for those without any pixel."""

    scores: Mapping[str, Mapping[str, float]]
    """Fractions by score and case, such as `error` and `0-1 px`: printed, logged, and compared in reports."""
    details: Mapping[str, Mapping[str, float]]
    """Further numbers by name and case, for `results.json`."""
    classes: Mapping[str, list[float]]
    """Fractions for each class, by the heading of their column."""


class Diagnostic(Metric):
    """Base class of the options of `diagnostics`. States are integers that are summed over ranks, so sums are exact.

    A subclass takes its options by keyword, and skips pixels labelled `IGNORE`.
    """

    full_state_update = False

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes

    def update(self, prediction: Tensor, target: Tensor, confidence: Tensor) -> None:
        """Add class indices `prediction` and `target`, and the probabilities `confidence`, all of them `(B, H, W)`."""
        raise NotImplementedError

    def compute(self) -> Findings:
        """Return the findings on the pixels of all ranks."""
        raise NotImplementedError

    def chart(self, findings: Findings) -> Any:
        """Return a matplotlib figure of the findings, or None."""
        return None


class Diagnostics(MetricCollection):
    """The diagnostics of a score, by name, and their `findings` after `finish`."""

    def __init__(self, diagnostics: Mapping[str, Diagnostic]) -> None:
        super().__init__(dict(diagnostics), compute_groups=False)
        self.findings: dict[str, Findings] = {}

    def add(self, scores: ScoreMap, target: Tensor) -> Tensor:
        """Add the predictions `scores` for `target` `(B, H, W)`, and return their labels `(B, H, W)`."""
        labels, confidence = scores.labels_and_confidence()
        self.update(labels, target, confidence)
        return labels

    def finish(self) -> dict[str, float]:
        """Compute and forget what was added; return the scores by keys such as `calibration/ECE/15 bins`."""
        self.findings = self.compute()
        self.reset()
        return {
            f"{name}/{score}/{case}": value
            for name, findings in self.findings.items()
            for score, cases in findings.scores.items()
            for case, value in cases.items()
        }


def check_edges(key: str, edges: Sequence[float]) -> list[float]:
    """Return the upper edges of bins; raises UserError unless they are positive and increase."""
    if not edges or edges[0] <= 0 or any(a >= b for a, b in pairwise(edges)):
        raise UserError(f"diagnostics.{key}={list(edges)}: give increasing numbers above 0, such as [1,2,4]")
    return list(edges)


def bin_names(edges: Sequence[float], unit: str) -> list[str]:
    """Return a name for each bin up to one of `edges`, and for the rest above them."""
    lower = [0.0, *edges]
    names = [f"{low:g}-{high:g} {unit}" for low, high in zip(lower, edges, strict=False)]
    return [*names, f">{edges[-1]:g} {unit}"]


def ratios(names: Sequence[str], part: Tensor, whole: Tensor) -> dict[str, float]:
    """Return `part / whole` by name, NaN where `whole` is 0."""
    return dict(zip(names, (part.double() / whole).tolist(), strict=True))
