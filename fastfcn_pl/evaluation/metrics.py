"""Segmentation metrics over a whole split: the confusion matrix and its scores."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from fastfcn_pl.core.types import IGNORE


@dataclass(frozen=True)
class Scores:
    """Scores derived from a confusion matrix, as fractions. Means leave out classes with NaN."""

    iou: Tensor
    """`(num_classes,)` float64; NaN for a class that is neither labelled nor predicted anywhere."""
    accuracy: Tensor
    """`(num_classes,)` float64, also called recall; NaN for a class without labelled pixels."""
    share: Tensor
    """`(num_classes,)` float64: share of the labelled pixels."""
    dice: Tensor
    """`(num_classes,)` float64, also called F1; NaN as in `iou`."""
    matrix: Tensor
    """`(num_classes, num_classes)` int64 pixel counts, rows true, columns predicted."""
    mean_iou: float
    mean_accuracy: float
    pixel_accuracy: float
    mean_dice: float
    frequency_weighted_iou: float
    """Mean of the classes' IoU, weighted by their share of the labelled pixels."""

    @classmethod
    def of(cls, matrix: Tensor) -> Scores:
        """Compute the scores of `matrix` `(num_classes, num_classes)`, rows true, columns predicted."""
        side = math.isqrt(matrix.numel())
        matrix = matrix.cpu().view(side, side)  # torchmetrics makes a scalar of a single class's matrix
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
        """Classes that the mean IoU leaves out, since no pixel is labelled or predicted as them."""
        return self.iou.isnan().nonzero().flatten().tolist()


def confusion(prediction: Tensor, target: Tensor, num_classes: int) -> Tensor:
    """Return the pixel counts `(num_classes, num_classes)`, int64, rows true, columns predicted.

    `prediction` and `target` are class indices of one shape; pixels labelled `IGNORE` do not count.
    """
    labelled = target != IGNORE
    # torchmetrics' count takes pixels x classes^2 of memory with deterministic algorithms; this one always is.
    pairs = target[labelled].long() * num_classes + prediction[labelled]
    return torch.bincount(pairs, minlength=num_classes**2).view(num_classes, num_classes)


class ConfusionMatrix(Metric):
    """Confusion matrix of pixels and number of images, both summed over ranks."""

    full_state_update = False
    matrix: Tensor
    images: Tensor

    def __init__(self, num_classes: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_classes = num_classes
        self.add_state("matrix", torch.zeros(num_classes, num_classes, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("images", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Add class indices `prediction` and `target`, both `(B, H, W)`; skip pixels labelled `IGNORE`."""
        self.matrix += confusion(prediction, target, self.num_classes)
        self.images += len(target)

    def compute(self) -> tuple[Tensor, Tensor]:
        """Return the matrix `(num_classes, num_classes)`, rows true, columns predicted, and the number of images."""
        return self.matrix, self.images
