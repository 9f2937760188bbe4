"""Images of any size for networks that take only some: padding, and tiles of one size."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def padded(x: Tensor, multiple: int) -> Tensor:
    """Return images with sides that are multiples of `multiple`, filled up at the bottom and right with zeros."""
    if multiple == 1:
        return x
    height, width = x.shape[-2:]  # padded always: a branch would tie an exported file to sizes of one kind
    return F.pad(x, (0, _round_up(width, multiple) - width, 0, _round_up(height, multiple) - height))


def by_tiles(network: Callable[[Tensor], list[Tensor]], x: Tensor, tile: int) -> list[Tensor]:
    """Return the maps of a network that takes squares of `tile` pixels only, which sees `x` as tiles of that size."""
    batch, channels, height, width = x.shape
    rows, columns = height // tile, width // tile
    tiles = x.reshape(batch, channels, rows, tile, columns, tile).permute(0, 2, 4, 1, 3, 5)
    return [_joined(m, rows, columns) for m in network(tiles.reshape(-1, channels, tile, tile))]


def _joined(tiles: Tensor, rows: int, columns: int) -> Tensor:
    """Return `(B, C, rows * h, columns * w)` from maps of tiles `(B * rows * columns, C, h, w)`."""
    channels, height, width = tiles.shape[1:]
    grid = tiles.reshape(-1, rows, columns, channels, height, width).permute(0, 3, 1, 4, 2, 5)
    return grid.reshape(-1, channels, rows * height, columns * width)


def cropped(levels: Sequence[Tensor], strides: Sequence[int], size: Sequence[int]) -> list[Tensor]:
    """Return the part of each level that belongs to an image of `size` before padding: `ceil(size / stride)` pixels."""
    sizes = [[_round_up(length, stride) // stride for length in size] for stride in strides]
    return [_first(level, *lengths) for level, lengths in zip(levels, sizes, strict=True)]


def _first(level: Tensor, height: int, width: int) -> Tensor:
    """Return the first rows and columns of a level."""
    if not torch.compiler.is_exporting():
        return level[..., :height, :width]
    # A view would tie the file to sizes at which something is cut off: torch.export asks if it is contiguous.
    rows, columns = (torch.arange(length, device=level.device) for length in (height, width))
    return level.index_select(2, rows).index_select(3, columns)


def _round_up(length: int, multiple: int) -> int:
    """Return the next multiple, in arithmetic of positive numbers: ONNX's division rounds negative ones to zero."""
    return (length + multiple - 1) // multiple * multiple
