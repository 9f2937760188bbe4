"""Scores, all of them derived from one int64 confusion matrix over a whole split."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from fastfcn_pl.contracts import IGNORE


@dataclass(frozen=True)
class Scores:
    """Fractions out of a confusion matrix. A class that occurs neither in labels nor in predictions has NaN."""

    iou: Tensor
    """`(num_classes,)` float64, NaN for a class without any pixel."""
    accuracy: Tensor
    """`(num_classes,)` float64: the share of a class's pixels that was found; NaN for a class without labels."""
    share: Tensor
    """`(num_classes,)` float64: the class's share of the labelled pixels."""
    dice: Tensor
    """`(num_classes,)` float64, also called F1: twice the hits over labelled plus predicted pixels; NaN as in `iou`."""
    matrix: Tensor
    """`(num_classes, num_classes)` int64, rows true, columns predicted: what all of this comes from."""
    mean_iou: float
    mean_accuracy: float
    pixel_accuracy: float
    mean_dice: float
    frequency_weighted_iou: float
    """The classes' IoU, each weighted by its share of the labelled pixels."""

    @classmethod
    def of(cls, matrix: Tensor) -> Scores:
        """Derive the scores from `matrix` `(num_classes, num_classes)`, rows true, columns predicted."""
        side = math.isqrt(matrix.numel())
        matrix = matrix.cpu().view(side, side)  # torchmetrics returns a single class's matrix as a scalar
        counts = matrix.double()
        hit, true, predicted = counts.diagonal(), counts.sum(1), counts.sum(0)
        iou, accuracy = hit / (true + predicted - hit), hit / true  # 0 / 0 is NaN
        dice, share = 2 * hit / (true + predicted), true / true.sum()
        return cls(
            iou=iou,
            accuracy=accuracy,
            share=share,
            dice=dice,
            matrix=matrix,
            mean_iou=iou.nanmean().item(),
            mean_accuracy=accuracy.nanmean().item(),
            pixel_accuracy=(hit.sum() / true.sum()).item(),
            mean_dice=dice.nanmean().item(),
            frequency_weighted_iou=(share * iou)[true > 0].sum().item() if true.sum() else math.nan,
        )

    @property
    def absent(self) -> list[int]:
        """The classes that are left out of the mean IoU, because no pixel is labelled or predicted as them."""
        return self.iou.isnan().nonzero().flatten().tolist()


class ConfusionMatrix(Metric):
    """Pixel counts `(num_classes, num_classes)` int64, rows true, columns predicted, and how many images they are of.

    Both are summed over ranks.
    """

    full_state_update = False
    matrix: Tensor
    images: Tensor

    def __init__(self, num_classes: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_classes = num_classes
        self.add_state("matrix", torch.zeros(num_classes, num_classes, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("images", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Count the pixels of class indices `prediction` and `target`, both `(B, H, W)`; `IGNORE` counts nowhere."""
        n = self.num_classes
        # Ignored pixels are counted in a row of their own that is dropped: cheaper than selecting the others.
        rows = torch.where(target == IGNORE, n, target.long())
        counts = torch.bincount((rows * n + prediction).flatten(), minlength=(n + 1) * n)
        self.matrix += counts.view(n + 1, n)[:n]
        self.images += len(target)

    def compute(self) -> tuple[Tensor, Tensor]:
        """Return the counts of pixels, and of images."""
        return self.matrix, self.images
