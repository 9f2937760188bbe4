"""The one place that interpolates feature maps and logits."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def resize(x: Tensor, size: tuple[int, int], align_corners: bool) -> Tensor:
    """Return `x` `(B, C, h, w)` bilinearly interpolated to `(B, C, *size)`; `x` itself where it has that size."""
    if x.shape[-2:] == size:
        return x
    return F.interpolate(x, size, mode="bilinear", align_corners=align_corners)
