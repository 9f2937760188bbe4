"""Warping of feature maps by displacements."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def warp(x: Tensor, displacement: Tensor, align_corners: bool) -> Tensor:
    """Sample `x` `(B, C, h, w)` bilinearly at displaced pixels of another grid: `(B, C, H, W)`.

    `displacement` `(B, 2, H, W)` is horizontal and vertical, in units in which the grid reaches from -1 to 1: from the
    first pixel to the last one, in `x` as well if `align_corners`. Pixels outside of `x` are 0.
    """
    dtype = torch.promote_types(x.dtype, torch.float32)  # in half precision positions are coarser than pixels
    displacement = displacement.to(dtype)
    height, width = displacement.shape[-2:]
    columns = displacement[:, 0] + _grid(width, displacement)
    rows = displacement[:, 1] + _grid(height, displacement).unsqueeze(-1)
    grid = torch.stack([columns, rows], -1)
    return F.grid_sample(x.to(dtype), grid, padding_mode="zeros", align_corners=align_corners).to(x.dtype)


def in_pixels(displacement: Tensor) -> Tensor:
    """Convert a displacement `(B, 2, H, W)` from pixels of its grid to the units of `warp` with `align_corners`."""
    height, width = displacement.shape[-2:]
    x, y = displacement.unbind(1)
    return torch.stack([2 * x / _steps(width), 2 * y / _steps(height)], 1)


def _grid(length: int, like: Tensor) -> Tensor:
    """Return the positions of the pixels of a side, from -1 to 1."""
    return torch.arange(length, dtype=like.dtype, device=like.device) * 2 / _steps(length) - 1


def _steps(length: int) -> int:
    """Return the number of steps from a side's first pixel to its last one; 1 for a single pixel, which has none."""
    return length - 1 + 1 // length  # without a comparison, which an export would decide once for all sizes
