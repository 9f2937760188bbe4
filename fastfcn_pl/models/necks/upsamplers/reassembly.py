"""Reassembly: each pixel of a large map as a weighted sum over a window of a small one (CARAFE, section 3.2)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def windows(x: Tensor, kernel_size: int, groups: int = 1) -> Tensor:
    """Return the window around each pixel of `x` `(B, C, h, w)`: `(B, h, w, groups, kernel_size^2, C / groups)`.

    Its pixels are in row-major order; those outside of the map are 0.
    """
    height, width = x.shape[-2:]
    padded = F.pad(x, [kernel_size // 2] * 4).permute(0, 2, 3, 1).contiguous().unflatten(-1, (groups, -1))
    offsets = [(top, left) for top in range(kernel_size) for left in range(kernel_size)]
    return torch.stack([padded[:, top : top + height, left : left + width] for top, left in offsets], dim=-2)


def cells(x: Tensor, like: Tensor, scale: int) -> Tensor:
    """Return the pixels of `x` `(B, C, H, W)` that lie in each pixel of `like` `(B, D, h, w)`: `(B, h, w, scale^2, C)`.

    `like` is `scale` times smaller, with its size rounded up. Pixels that `x` lacks for that are 0.
    """
    (batch, channels), (height, width) = x.shape[:2], like.shape[-2:]
    x = fit(x, scale * height, scale * width).reshape(batch, channels, height, scale, width, scale)
    return x.permute(0, 2, 4, 3, 5, 1).flatten(3, 4)


def reassemble(x: Tensor, kernels: Tensor, kernel_size: int, scale: int, fine: Tensor) -> Tensor:
    """Return `x` `(B, C, h, w)` enlarged `scale` times, cut to the size of `fine` `(B, D, H, W)`: `(B, C, H, W)`.

    `kernels` `(B, h, w, groups, scale^2, kernel_size^2)` holds the weights of each new pixel, in row-major order. The
    windows are those of `x`, so that memory holds `kernel_size^2` copies of the small map and not of the large one.
    """
    (batch, channels), (height, width) = x.shape[:2], x.shape[-2:]
    pixels = (kernels @ windows(x, kernel_size, kernels.shape[3])).unflatten(4, (scale, scale))
    large = pixels.permute(0, 1, 4, 2, 5, 3, 6).reshape(batch, scale * height, scale * width, channels)
    return fit(large.permute(0, 3, 1, 2), *fine.shape[-2:])


def fit(x: Tensor, height: int, width: int) -> Tensor:
    """Return `x` `(B, C, h, w)` with rows and columns cut off, or filled up with zeros: `(B, C, height, width)`."""
    # Slices would restrict an exported file to sizes at which they are contiguous.
    return F.pad(x, (0, width - x.shape[-1], 0, height - x.shape[-2]))
