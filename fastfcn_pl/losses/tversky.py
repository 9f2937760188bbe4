"""The Tversky loss."""

from __future__ import annotations

from torch import Tensor, nn

from fastfcn_pl.core.types import UserError
from fastfcn_pl.losses.reduction import mean_over_ranks
from fastfcn_pl.losses.region import region_sums
from fastfcn_pl.ops.interpolate import resize_logits


class Tversky(nn.Module):
    """One minus the Tversky index, averaged over the classes that occur (arXiv 1706.05721, equation 1).

    The index of a class with probabilities p and truth g (0 or 1) is `T / (T + alpha P + beta N)`: `T = sum(p g)`,
    false positives `P = sum(p (1 - g))`, false negatives `N = sum((1 - p) g)`. With 0.5 and 0.5 it is Dice without
    squares, with 1 and 1 the soft Jaccard index. Each class's loss is raised to `exponent`: below 1 for more weight on
    hard classes (focal Tversky, arXiv 1810.07842, whose gamma is `1 / exponent`). Sums run over the labelled pixels of
    the batch. Logits `(B, C, h, w)` and target `(B, H, W)` to a scalar. Raises UserError for values without a meaning.
    """

    def __init__(self, *, alpha: float, beta: float, exponent: float) -> None:
        super().__init__()
        if alpha < 0 or beta <= 0:
            raise UserError(f"alpha={alpha}, beta={beta} of the Tversky loss: use 0 or more, and a beta above 0")
        if exponent <= 0:
            raise UserError(f"exponent={exponent} of the Tversky loss: use 1, or another number above 0")
        self.alpha, self.beta, self.exponent = alpha, beta, exponent

    def forward(self, logits: Tensor, target: Tensor, align_corners: bool) -> Tensor:
        probability = resize_logits(logits, target.shape[-2:], align_corners).softmax(1)
        probability, overlap, size = region_sums(probability, target)
        predicted = probability.sum((0, 2, 3))
        present = size > 0  # chosen before the division, whose gradient would be NaN for a class without pixels
        overlap, predicted, size = overlap[present], predicted[present], size[present]
        wrong = self.alpha * (predicted - overlap) + self.beta * (size - overlap)
        losses = wrong / (overlap + wrong)
        # Away from 0, where the power has no gradient if the exponent is below 1.
        return mean_over_ranks((losses.clamp(min=1e-6) ** self.exponent).sum(), present.sum())
