"""The Dice loss."""

from __future__ import annotations

from torch import Tensor, nn

from fastfcn_pl.losses.reduction import mean_over_ranks
from fastfcn_pl.losses.region import region_sums
from fastfcn_pl.ops.interpolate import resize_logits


class Dice(nn.Module):
    """One minus the soft Dice coefficient of V-Net (arXiv 1606.04797, section 3), averaged over the classes that occur.

    The coefficient of a class with probabilities p and truth g (0 or 1) is `2 sum(p g) / (sum(p^2) + sum(g^2))`. Sums
    run over the labelled pixels of the batch; classes without any are left out. Logits `(B, C, h, w)` and target
    `(B, H, W)` to a scalar.
    """

    def forward(self, logits: Tensor, target: Tensor, align_corners: bool) -> Tensor:
        probability = resize_logits(logits, target.shape[-2:], align_corners).softmax(1)
        probability, overlap, size = region_sums(probability, target)
        predicted = probability.square().sum((0, 2, 3))
        present = size > 0
        losses = 1 - 2 * overlap[present] / (predicted + size)[present]
        return mean_over_ranks(losses.sum(), present.sum())
