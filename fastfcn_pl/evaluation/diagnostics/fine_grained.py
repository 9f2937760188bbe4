"""Mean IoU by image and by class of an image."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from fastfcn_pl.core.types import UserError
from fastfcn_pl.evaluation.diagnostics.diagnostic import Diagnostic, Findings
from fastfcn_pl.evaluation.metrics import confusion


class FineGrained(Diagnostic):
    """Fine-grained mIoU, and that of the worst images (Wang et al., arXiv 2310.19252)."""

    counts: list[Tensor]

    def __init__(self, num_classes: int, *, worst_percent: int) -> None:
        super().__init__(num_classes)
        if not 0 < worst_percent <= 100:
            raise UserError(f"diagnostics.fine_grained.worst_percent={worst_percent}: give 1 to 100")
        self.worst_percent = worst_percent
        self.add_state("counts", [], dist_reduce_fx="cat")
        self.reset()

    def reset(self) -> None:
        """Forget all images, and keep an empty tensor: a rank without images must have one to send."""
        super().reset()
        self.counts.append(torch.zeros(0, 3, self.num_classes, dtype=torch.int64, device=self.device))

    def update(self, prediction: Tensor, target: Tensor, confidence: Tensor) -> None:
        for predicted, labels in zip(prediction, target, strict=True):
            matrix = confusion(predicted, labels, self.num_classes)
            self.counts.append(torch.stack([matrix.diagonal(), matrix.sum(1), matrix.sum(0)])[None])

    def compute(self) -> Findings:
        counts = torch.cat(self.counts) if isinstance(self.counts, list) else self.counts  # after a synchronisation
        return fine_grained(counts.cpu().numpy(), self.worst_percent)


def fine_grained(counts: np.ndarray, worst_percent: int) -> Findings:
    """Return the scores of `counts` `(N, 3, C)`: correct, labelled and predicted pixels of each class in N images.

    An image's IoU of a class counts if the image has the class in its labels. mIoU^I is the mean over images of the
    mean over their classes, mIoU^C the mean over classes of the mean over their images. The worst are at least one
    image, or one image of each class.
    """
    correct, labelled, predicted = counts.transpose(1, 0, 2)
    present = labelled > 0
    iou = correct / np.maximum(labelled + predicted - correct, 1)
    by_image = [_mean(row[has]) for row, has in zip(iou, present, strict=True) if has.any()]
    by_class = [column[has].tolist() for column, has in zip(iou.T, present.T, strict=True)]
    worst = f"of the worst {worst_percent} %"
    scores = {
        "mIoU^I": _mean(by_image),
        "mIoU^C": _mean([_mean(values) for values in by_class if values]),
        f"mIoU^I {worst}": _mean(_lowest(by_image, worst_percent)),
        f"mIoU^C {worst}": _mean([_mean(_lowest(values, worst_percent)) for values in by_class if values]),
    }
    return Findings({"mIoU": scores}, {}, {"mean IoU of an image": [_mean(v) for v in by_class]})


def _lowest(values: Sequence[float], percent: int) -> list[float]:
    return sorted(values)[: max(1, len(values) * percent // 100)]


def _mean(values: Sequence[float] | np.ndarray) -> float:
    """Return the mean, which does not depend on the order of the values; NaN without values."""
    return math.fsum(values) / len(values) if len(values) else math.nan
