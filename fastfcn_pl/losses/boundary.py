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
    """Probability times its distance in pixels from the true boundary of its class (arXiv 1812.07032, equation 5).

    Distances are signed: positive outside of the region, negative inside. Pixels far outside cost most, so that the
    loss moves boundaries; it is used beside another loss. Classes that an image does not have are left out, as in the
    published code. The mean is over the labelled pixels, for which the classes' terms are added. The paper has no
    ignored pixels; here its integral leaves them out, and no boundary runs between them and a region. Distances are
    computed on the CPU. Logits `(B, C, h, w)` and target `(B, H, W)` to a scalar.
    """

    def forward(self, logits: Tensor, target: Tensor, align_corners: bool) -> Tensor:
        probability = resize_logits(logits, target.shape[-2:], align_corners).softmax(1)
        images, classes, distances = signed_distances(target.cpu().numpy())
        labelled = target != IGNORE
        terms = probability[images, classes] * torch.from_numpy(distances).to(probability)
        return mean_over_ranks(terms.where(labelled[images], 0).sum(), labelled.sum())


def signed_distances(target: np.ndarray) -> tuple[list[int], list[int], np.ndarray]:
    """Return image, class and distances of each of the N regions in `target` `(B, H, W)`: N, N and `(N, H, W)`.

    A region is all pixels of a class in an image. Outside, the distance is the Euclidean one to the nearest pixel of
    the region. Inside, it is one minus that to the nearest labelled pixel of another class, so that pixels at the
    border have 0; if there is no such pixel, it is 0.
    """
    regions = [(b, c) for b, labels in enumerate(target) for c in np.unique(labels).tolist() if c != IGNORE]
    distances = np.empty((len(regions), *target.shape[1:]), np.float32)
    for (b, c), signed in zip(regions, distances, strict=True):
        inside, ignored = target[b] == c, target[b] == IGNORE
        signed[:] = _distance_to(inside)
        if not (inside | ignored).all():
            signed -= (_distance_to(~(inside | ignored)) - 1) * inside
    return [b for b, _ in regions], [c for _, c in regions], distances


def _distance_to(mask: np.ndarray) -> np.ndarray:
    return cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
