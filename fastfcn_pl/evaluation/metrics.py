"""Scores over a whole split: all but the boundary's are derived from one int64 confusion matrix."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric

from fastfcn_pl.core.types import IGNORE, UserError


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


def confusion(prediction: Tensor, target: Tensor, num_classes: int) -> Tensor:
    """Count pixels of class indices of one shape: `(num_classes, num_classes)` int64, rows true, columns predicted."""
    n = num_classes
    # Ignored pixels are counted in a row of their own that is dropped: cheaper than selecting the others.
    rows = target.long().masked_fill(target == IGNORE, n)
    return torch.bincount((rows * n + prediction).flatten(), minlength=(n + 1) * n).view(n + 1, n)[:n]


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
        self.matrix += confusion(prediction, target, self.num_classes)
        self.images += len(target)

    def compute(self) -> tuple[Tensor, Tensor]:
        """Return the counts of pixels, and of images."""
        return self.matrix, self.images


class BoundaryIoU(Metric):
    """IoU of what lies near the boundary of a class, in labels and in prediction (Cheng et al., CVPR 2021, eq. 2).

    Near is within `ratio` of the image's diagonal; 0.02 in the paper. As in its code, the image's border is a boundary,
    and distance is the larger of rows and columns. Pixels of each class are summed over images and ranks; `compute`
    returns `(num_classes,)` float64, NaN for a class without any.
    """

    full_state_update = False
    common: Tensor
    either: Tensor

    def __init__(self, num_classes: int, ratio: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not 0 < ratio < 1:
            raise UserError(f"boundary_ratio={ratio}: give a share of the image's diagonal, such as 0.02")
        self.num_classes, self.ratio = num_classes, ratio
        for name in ("common", "either"):
            self.add_state(name, torch.zeros(num_classes, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Count class indices `prediction` and `target`, both `(B, H, W)`; `IGNORE` counts nowhere."""
        distance = max(1, round(self.ratio * math.hypot(*target.shape[-2:])))
        prediction = torch.where(target == IGNORE, IGNORE, prediction)
        predicted, true = _near_boundary(prediction, distance), _near_boundary(target, distance)
        common = self._count(target[predicted & true & (prediction == target)])
        self.common += common
        self.either += self._count(target[true]) + self._count(prediction[predicted]) - common

    def _count(self, labels: Tensor) -> Tensor:
        return torch.bincount(labels.long(), minlength=IGNORE + 1)[: self.num_classes]

    def compute(self) -> Tensor:
        """Return the boundary IoU of each class."""
        return self.common.double() / self.either


def _near_boundary(labels: Tensor, distance: int) -> Tensor:
    """Return where another class, or the outside, is within `distance` rows and columns of a pixel of `(B, H, W)`."""
    padded = F.pad(labels.short(), (distance,) * 4, value=-1)
    lowest, highest = -padded, padded
    for dim in (1, 2):
        lowest, highest = (_largest(x, 2 * distance + 1, dim) for x in (lowest, highest))
    return -lowest != highest


def _largest(x: Tensor, window: int, dim: int) -> Tensor:
    """Return the largest value of each `window` along `dim`, by windows that double in size."""
    size = 1
    while size < window:
        step, length = min(size, window - size), x.shape[dim]
        x = torch.maximum(x.narrow(dim, 0, length - step), x.narrow(dim, step, length - step))
        size += step
    return x
