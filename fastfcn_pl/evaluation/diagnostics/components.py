"""Recall by the size of true objects."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from fastfcn_pl.core.types import IGNORE
from fastfcn_pl.evaluation.diagnostics.diagnostic import Diagnostic, Findings, bin_names, check_edges, ratios

_CONNECTIVITY = np.ones((3, 3))


class Components(Diagnostic):
    """Share of correct pixels in connected components of the labels, by the components' area and by their width.

    Pixels of a class are connected if they touch, also at corners. The width of a component is the diameter of the
    largest disk inside it that is centred at a pixel: that of a line is its thickness, less one if that is even.
    `areas` and `widths` are the upper edges of the bins, in pixels.
    """

    areas: Tensor
    widths: Tensor

    def __init__(self, num_classes: int, *, areas: Sequence[float], widths: Sequence[float]) -> None:
        super().__init__(num_classes)
        self.edges = {"area": check_edges("components.areas", areas), "width": check_edges("components.widths", widths)}
        for name, edges in self.edges.items():
            shape = 3, len(edges) + 1  # correct pixels, pixels, components
            self.add_state(f"{name}s", torch.zeros(shape, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, prediction: Tensor, target: Tensor, confidence: Tensor) -> None:
        for predicted, labels in zip(prediction.cpu().numpy(), target.cpu().numpy(), strict=True):
            for correct, area, width in components(labels, predicted == labels):
                for name, size in (("area", area), ("width", width)):
                    edges, counts = self.edges[name], getattr(self, f"{name}s")
                    added = np.zeros(counts.shape, np.int64)
                    np.add.at(added.T, np.searchsorted(edges, size), np.stack([correct, area, np.ones_like(area)], 1))
                    counts += torch.from_numpy(added).to(counts.device)

    def compute(self) -> Findings:
        scores, details = {}, {}
        for name, edges in self.edges.items():
            names, (correct, pixels, number) = bin_names(edges, "px"), getattr(self, f"{name}s")
            scores[f"recall by {name}"] = ratios(names, correct, pixels)
            details[f"components by {name}"] = dict(zip(names, number.tolist(), strict=True))
        return Findings(scores, details, {})


def components(labels: np.ndarray, correct: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yield correct pixels, area and width of the components of each class in `labels` `(H, W)`.

    A component ends at the image's border and at ignored pixels, as it does at other classes.
    """
    for c, box in enumerate(ndimage.find_objects(labels.astype(np.int64) + 1, max_label=IGNORE)):
        if box is None:
            continue
        own = labels[box] == c
        numbers, count = ndimage.label(own, _CONNECTIVITY)
        depth = ndimage.distance_transform_edt(np.pad(own, 1))[1:-1, 1:-1]
        areas, right = (np.bincount(numbers[mask], minlength=count + 1)[1:] for mask in (own, own & correct[box]))
        deepest = np.zeros(count + 1)
        np.maximum.at(deepest, numbers[own], depth[own])
        yield right, areas, 2 * deepest[1:] - 1
