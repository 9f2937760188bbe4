"""The Lovasz-softmax loss (arXiv 1705.08790)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fastfcn_pl.core.types import IGNORE
from fastfcn_pl.losses.reduction import mean_over_ranks
from fastfcn_pl.ops.interpolate import resize_logits


class LovaszSoftmax(nn.Module):
    """A convex surrogate of one minus IoU, averaged over the classes that occur in the batch.

    Logits `(B, C, h, w)` and target `(B, H, W)` to a scalar, over the labelled pixels of the batch (algorithm 1).
    """

    def forward(self, logits: Tensor, target: Tensor, align_corners: bool) -> Tensor:
        full = resize_logits(logits, target.shape[-2:], align_corners)
        labelled = target != IGNORE
        probability, truth = full.softmax(1).movedim(1, -1)[labelled], target[labelled].long()
        present = truth.unique()
        losses = [_surrogate((truth == c).to(probability), probability[:, c]) for c in present.tolist()]
        total = torch.stack(losses).sum() if losses else probability.sum()
        return mean_over_ranks(total, torch.tensor(len(losses), device=total.device))


def _surrogate(truth: Tensor, probability: Tensor) -> Tensor:
    """Return the Lovasz extension of the Jaccard loss of one class; both arguments `(N,)`."""
    errors, order = (truth - probability).abs().sort(descending=True)
    truth = truth[order]
    missed = truth.sum() - truth.cumsum(0)
    union = truth.sum() + (1 - truth).cumsum(0)
    jaccard = 1 - missed / union
    return errors @ jaccard.diff(prepend=jaccard.new_zeros(1))
