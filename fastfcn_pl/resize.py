"""The one place that interpolates feature maps and logits."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def resize(x: Tensor, size: Sequence[int], align_corners: bool) -> Tensor:
    """Return `x` `(B, C, h, w)` bilinearly interpolated to `(B, C, *size)`; `x` itself where it has that size."""
    if tuple(x.shape[-2:]) == tuple(size):
        return x
    return F.interpolate(x, tuple(size), mode="bilinear", align_corners=align_corners)


def resize_logits(logits: Tensor, size: Sequence[int], align_corners: bool) -> Tensor:
    """Return `logits` `(B, C, h, w)` at `size`, in float32 at least, also where autocast made them smaller."""
    return resize(logits if logits.dtype == torch.float64 else logits.float(), size, align_corners)
