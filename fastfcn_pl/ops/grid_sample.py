"""Bilinear sampling of maps at given positions."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor


def position_dtype(x: Tensor) -> torch.dtype:
    """Return the type of positions in `x`: float32 at least, since in half precision they are coarser than pixels."""
    return torch.promote_types(x.dtype, torch.float32)


def grid_sample(
    x: Tensor, columns: Tensor, rows: Tensor, padding_mode: Literal["zeros", "border"], align_corners: bool
) -> Tensor:
    """Sample `x` `(B, C, h, w)` at `columns` and `rows` `(B, H, W)`, which reach from -1 to 1: `(B, C, H, W)`.

    Positions are of `position_dtype`, in which the arithmetic is done; the result has the type of `x`.
    """
    grid = torch.stack([columns, rows], -1)
    sampled = F.grid_sample(x.to(grid.dtype), grid, padding_mode=padding_mode, align_corners=align_corners)
    return sampled.to(x.dtype)
