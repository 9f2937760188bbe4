"""IoU of the pixels near boundaries."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from fastfcn_pl.core.types import IGNORE, UserError
from fastfcn_pl.evaluation.diagnostics.diagnostic import Diagnostic, Findings


class BoundaryIoU(Diagnostic):
    """IoU of the pixels near class boundaries, in labels and in predictions (Cheng et al., CVPR 2021, eq. 2).

    A pixel is near a boundary if it is within `ratio` times the image's diagonal; the paper uses 0.02. As in the
    paper's code, the image's border is a boundary and distance is the larger of rows and columns. Pixels are summed
    over images and ranks.
    """

    intersection: Tensor
    union: Tensor

    def __init__(self, num_classes: int, *, ratio: float) -> None:
        super().__init__(num_classes)
        if not 0 < ratio < 1:
            raise UserError(
                f"diagnostics.boundary_iou.ratio={ratio}: give a share of the image's diagonal, such as 0.02"
            )
        self.ratio = ratio
        for name in ("intersection", "union"):
            self.add_state(name, torch.zeros(num_classes, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, prediction: Tensor, target: Tensor, confidence: Tensor) -> None:
        distance = max(1, round(self.ratio * math.hypot(*target.shape[-2:])))
        prediction = torch.where(target == IGNORE, IGNORE, prediction)
        predicted, true = _near_boundary(prediction, distance), _near_boundary(target, distance)
        intersection = self._count(target[predicted & true & (prediction == target)])
        self.intersection += intersection
        self.union += self._count(target[true]) + self._count(prediction[predicted]) - intersection

    def _count(self, labels: Tensor) -> Tensor:
        return torch.bincount(labels.long(), minlength=IGNORE + 1)[: self.num_classes]

    def compute(self) -> Findings:
        iou = self.intersection.double() / self.union
        case = f"{100 * self.ratio:g} % of the diagonal"
        return Findings({"mean": {case: iou.nanmean().item()}}, {}, {"boundary IoU": iou.tolist()})


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
