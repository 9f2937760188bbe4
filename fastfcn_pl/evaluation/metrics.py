"""Segmentation metrics over a whole split: scores of a confusion matrix, and boundary IoU."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.functional.classification import multiclass_confusion_matrix

from fastfcn_pl.core.types import IGNORE, UserError


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
        """Classes that the mean IoU leaves out, since no pixel is labelled or predicted as them."""
        return self.iou.isnan().nonzero().flatten().tolist()


def confusion(prediction: Tensor, target: Tensor, num_classes: int) -> Tensor:
    """Return the pixel counts `(num_classes, num_classes)`, int64, rows true, columns predicted."""
    return multiclass_confusion_matrix(prediction, target.long(), num_classes, ignore_index=IGNORE, validate_args=False)


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


class BoundaryIoU(Metric):
    """IoU of the pixels near class boundaries, in labels and in predictions (Cheng et al., CVPR 2021, eq. 2).

    A pixel is near a boundary if it is within `ratio` times the image's diagonal; the paper uses 0.02. As in the
    paper's code, the image's border is a boundary and distance is the larger of rows and columns. Pixels are summed
    over images and ranks.
    """

    full_state_update = False
    intersection: Tensor
    union: Tensor

    def __init__(self, num_classes: int, ratio: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not 0 < ratio < 1:
            raise UserError(f"boundary_ratio={ratio}: give a share of the image's diagonal, such as 0.02")
        self.num_classes, self.ratio = num_classes, ratio
        for name in ("intersection", "union"):
            self.add_state(name, torch.zeros(num_classes, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Add class indices `prediction` and `target`, both `(B, H, W)`; skip pixels labelled `IGNORE`."""
        distance = max(1, round(self.ratio * math.hypot(*target.shape[-2:])))
        prediction = torch.where(target == IGNORE, IGNORE, prediction)
        predicted, true = _near_boundary(prediction, distance), _near_boundary(target, distance)
        intersection = self._count(target[predicted & true & (prediction == target)])
        self.intersection += intersection
        self.union += self._count(target[true]) + self._count(prediction[predicted]) - intersection

    def _count(self, labels: Tensor) -> Tensor:
        return torch.bincount(labels.long(), minlength=IGNORE + 1)[: self.num_classes]

    def compute(self) -> Tensor:
        """Return the boundary IoU `(num_classes,)`, float64; NaN for a class without boundary pixels."""
        return self.intersection.double() / self.union


def _near_boundary(labels: Tensor, distance: int) -> Tensor:
    """Return a mask `(B, H, W)` of pixels with another class, or the border, within `distance` rows and columns."""
    padded = F.pad(labels.short(), (distance,) * 4, value=-1)
    lowest, highest = -padded, padded
    for dim in (1, 2):
        lowest, highest = (_sliding_max(x, 2 * distance + 1, dim) for x in (lowest, highest))
    return -lowest != highest


def _sliding_max(x: Tensor, window: int, dim: int) -> Tensor:
    """Return the maximum of each `window` along `dim`, in log(window) steps that double the window."""
    size = 1
    while size < window:
        step, length = min(size, window - size), x.shape[dim]
        x = torch.maximum(x.narrow(dim, 0, length - step), x.narrow(dim, step, length - step))
        size += step
    return x
