"""Dilated convolutions as plain ones: pixels that are `dilation` apart become an image of their own, a phase."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor


def convolve_phases(x: Tensor, dilation: int, convolve: Callable[[Tensor], Tensor]) -> Tensor:
    """Return `x` `(B, C, H, W)` as `(B, C', H, W)`, whose phases `convolve` changes, both in channels_last.

    `convolve` takes images `(B, H, W, C)` and keeps their size.
    """
    batch, _, height, width = x.shape
    x = F.pad(x.permute(0, 2, 3, 1), (0, 0, 0, -width % dilation, 0, -height % dilation))
    phases = x.unflatten(1, (-1, dilation)).unflatten(3, (-1, dilation)).permute(0, 2, 4, 1, 3, 5).flatten(0, 2)
    out = convolve(phases).unflatten(0, (batch, dilation, dilation)).permute(0, 3, 1, 4, 2, 5)
    return out.flatten(3, 4).flatten(1, 2)[:, :height, :width].permute(0, 3, 1, 2)
