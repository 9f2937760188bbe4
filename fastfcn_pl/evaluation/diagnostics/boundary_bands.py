"""Error by the distance to a boundary between classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from fastfcn_pl.core.types import IGNORE
from fastfcn_pl.evaluation.diagnostics.charts import bars
from fastfcn_pl.evaluation.diagnostics.diagnostic import Diagnostic, Findings, bin_names, check_edges, ratios


class BoundaryBands(Diagnostic):
    """Share of wrong pixels in bands around the true boundaries; `distances` are the bands' outer edges in pixels."""

    counts: Tensor

    def __init__(self, num_classes: int, *, distances: Sequence[float]) -> None:
        super().__init__(num_classes)
        self.distances = check_edges("boundary_bands.distances", distances)
        shape = 2, len(self.distances) + 1  # wrong pixels, pixels
        self.add_state("counts", torch.zeros(shape, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, prediction: Tensor, target: Tensor, confidence: Tensor) -> None:
        for predicted, labels in zip(prediction.cpu().numpy(), target.cpu().numpy(), strict=True):
            labelled = labels != IGNORE
            band = np.searchsorted(self.distances, boundary_distances(labels, self.distances[-1])[labelled])
            wrong = (predicted != labels)[labelled]
            counts = [np.bincount(part, minlength=len(self.distances) + 1) for part in (band[wrong], band)]
            self.counts += torch.from_numpy(np.stack(counts)).to(self.counts.device)

    def compute(self) -> Findings:
        names, (wrong, pixels) = bin_names(self.distances, "px"), self.counts
        return Findings(
            {"error by distance": ratios(names, wrong, pixels)}, {"share": ratios(names, pixels, pixels.sum())}, {}
        )

    def chart(self, findings: Findings) -> Any:
        return bars(
            findings.scores["error by distance"],
            findings.details["share"],
            "distance to a boundary",
            ("wrong pixels, %", "pixels, %"),
        )


def boundary_distances(labels: np.ndarray, limit: float) -> np.ndarray:
    """Return the distance of each pixel of `labels` `(H, W)` to the nearest one that is labelled as another class.

    Distances are Euclidean, in pixels, and exact up to `limit`; pixels further away have any larger value. Ignored
    pixels belong to no class, so an ignored strip between two classes widens their distance.
    """
    distances, margin = np.full(labels.shape, np.inf), int(np.ceil(limit)) + 1
    for c, box in enumerate(ndimage.find_objects(labels.astype(np.int64) + 1, max_label=IGNORE)):
        if box is None:
            continue
        window = tuple(slice(max(side.start - margin, 0), side.stop + margin) for side in box)
        part = labels[window]
        others = (part != c) & (part != IGNORE)
        if others.any():
            own = part == c
            distances[window][own] = ndimage.distance_transform_edt(~others)[own]
    return distances
