"""Pixels that are `dilation` apart as images of their own, in which a dilated convolution is a plain one."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor


def in_phases(x: Tensor, dilation: int, convolve: Callable[[Tensor], Tensor]) -> Tensor:
    """Convolve the pixels of each phase, which are `dilation` apart, as an image of its own: a dilated convolution.

    `(B, C, H, W)` to `(B, C', H, W)`; `convolve` keeps the size of images `(B, H, W, C)`.
    """
    batch, _, height, width = x.shape
    x = F.pad(x.permute(0, 2, 3, 1), (0, 0, 0, -width % dilation, 0, -height % dilation))
    phases = x.unflatten(1, (-1, dilation)).unflatten(3, (-1, dilation)).permute(0, 2, 4, 1, 3, 5).flatten(0, 2)
    out = convolve(phases).unflatten(0, (batch, dilation, dilation)).permute(0, 3, 1, 4, 2, 5)
    return out.flatten(3, 4).flatten(1, 2)[:, :height, :width].permute(0, 3, 1, 2)


def phases(x: Tensor, dilation: int) -> Tensor:
    """Return the phases of `(B, C, H, W)` in the default memory format, as a batch of `B * dilation ** 2`."""
    right, below = -x.shape[3] % dilation, -x.shape[2] % dilation
    if right or below:
        x = F.pad(x, (0, right, 0, below))
    return x.unflatten(2, (-1, dilation)).unflatten(4, (-1, dilation)).permute(0, 3, 5, 1, 2, 4).flatten(0, 2)
