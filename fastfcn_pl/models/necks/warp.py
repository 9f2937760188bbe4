"""Warping of feature maps by displacements."""

from __future__ import annotations

import torch
from torch import Tensor

from fastfcn_pl.ops.grid_sample import grid_sample, position_dtype


def warp(x: Tensor, displacement: Tensor, align_corners: bool) -> Tensor:
    """Sample `x` `(B, C, h, w)` bilinearly at displaced pixels of another grid: `(B, C, H, W)`.

    `displacement` `(B, 2, H, W)` is horizontal and vertical, in units in which the grid reaches from -1 to 1: from the
    first pixel to the last one, in `x` as well if `align_corners`. Pixels outside of `x` are 0.
    """
    displacement = displacement.to(position_dtype(x))
    height, width = displacement.shape[-2:]
    columns = displacement[:, 0] + _grid(width, displacement)
    rows = displacement[:, 1] + _grid(height, displacement).unsqueeze(-1)
    return grid_sample(x, columns, rows, "zeros", align_corners)


def in_pixels(displacement: Tensor) -> Tensor:
    """Convert a displacement `(B, 2, H, W)` from pixels of its grid to the units of `warp` with `align_corners`."""
    height, width = displacement.shape[-2:]
    return divided(2 * displacement, _steps(height), _steps(width))


def divided(displacement: Tensor, height: int, width: int) -> Tensor:
    """Return a displacement `(B, 2, H, W)` with its horizontal part over `width`, its vertical one over `height`."""
    horizontal, vertical = displacement.unbind(1)
    return torch.stack([horizontal / width, vertical / height], 1)


def _grid(length: int, like: Tensor) -> Tensor:
    """Return the positions of the pixels of a side, from -1 to 1."""
    return torch.arange(length, dtype=like.dtype, device=like.device) * 2 / _steps(length) - 1


def _steps(length: int) -> int:
    """Return the number of steps from a side's first pixel to its last one; 1 for a single pixel, which has none."""
    return length - 1 + 1 // length  # without a comparison, which an export would decide once for all sizes
