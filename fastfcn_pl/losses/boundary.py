"""The boundary loss."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from fastfcn_pl.core.types import IGNORE
from fastfcn_pl.losses.reduction import mean_over_ranks
from fastfcn_pl.ops.interpolate import resize_logits


class Boundary(nn.Module):
    """Probability times its distance in pixels from the true region of its class (arXiv 1812.07032, equation 5).

    Distances are signed: positive outside of the region, negative inside. Pixels far outside cost most, so that the
    loss moves boundaries; it is used beside another loss. Classes that an image does not have are left out, as in the
    published code. The mean is over the labelled pixels, for which the classes' terms are added; an ignored pixel
    belongs to no region. Distances are computed on the CPU. Logits `(B, C, h, w)` and target `(B, H, W)` to a scalar.
    """

    def forward(self, logits: Tensor, target: Tensor, align_corners: bool) -> Tensor:
        probability = resize_logits(logits, target.shape[-2:], align_corners).softmax(1)
        distances = signed_distances(target.cpu().numpy(), probability.shape[1])
        labelled = target != IGNORE
        terms = (probability * torch.from_numpy(distances).to(probability)).sum(1)
        return mean_over_ranks(terms.where(labelled, 0).sum(), labelled.sum())


def signed_distances(target: np.ndarray, classes: int) -> np.ndarray:
    """Return the distance of each pixel of `target` `(B, H, W)` from the region of each class: `(B, classes, H, W)`.

    Outside of a region it is the Euclidean distance to its nearest pixel. Inside, it is the negative distance to the
    nearest pixel outside plus one, so that pixels at the border have 0. A class that an image does not have has 0.
    """
    distances = np.zeros((len(target), classes, *target.shape[1:]), np.float32)
    for labels, maps in zip(target, distances, strict=True):
        for c in np.unique(labels).tolist():
            if c < classes:
                region = (labels == c).astype(np.uint8)
                maps[c] = _distance_to_zero(1 - region)
                if not region.all():
                    maps[c] -= (_distance_to_zero(region) - 1) * region
    return distances


def _distance_to_zero(mask: np.ndarray) -> np.ndarray:
    return cv2.distanceTransform(mask, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
