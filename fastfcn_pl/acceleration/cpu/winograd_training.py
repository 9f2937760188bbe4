"""3x3 convolutions in training: output and gradients in the default memory format, by Winograd's F(4x4, 3x3)."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from fastfcn_pl.acceleration.cpu.winograd import FROM_KERNEL, FROM_PIXELS, IN, OUT, TO_PIXELS, share_of_products, square

_TILES = 256
"""At a time: malloc takes fresh pages for each tensor of 32 MB or more, which makes them several times as slow."""


def conv3x3(x: Tensor, weight: Tensor) -> Tensor:
    """Return the convolution of `(B, C, H, W)` with `(O, C, 3, 3)`, of the same size."""
    (height, width), outputs = x.shape[2:], len(weight)
    matrices = square(FROM_KERNEL).to(x) @ weight.permute(2, 3, 0, 1).reshape(9, -1)
    matrices, grid = matrices.view(-1, *weight.shape[:2]), _Grid(x)
    out = x.new_empty(len(x), outputs, grid.rows, OUT, grid.columns, OUT)
    windows, from_pixels, to_pixels = grid.windows(x), square(FROM_PIXELS).to(x), square(TO_PIXELS).to(x)
    for images, rows in grid.parts():
        products = torch.bmm(matrices, _transformed(from_pixels, windows[images, :, rows])).flatten(1)
        place = out[images, :, rows]
        pixels = (to_pixels @ products).view(OUT, OUT, outputs, -1, *place.shape[2::2])
        place.copy_(pixels.permute(3, 2, 4, 0, 5, 1))
    return out.flatten(4, 5).flatten(2, 3)[..., :height, :width].contiguous()


def conv3x3_weight(x: Tensor, gradient: Tensor) -> Tensor:
    """Return the gradient of the weight `(O, C, 3, 3)`, from maps `(B, C, H, W)` and the gradient `(B, O, H, W)`."""
    grid, outputs, channels = _Grid(x), gradient.shape[1], x.shape[1]
    products = x.new_empty(IN**2, outputs, channels)
    windows, squares = grid.windows(x), grid.squares(gradient)
    from_pixels, to_products = square(FROM_PIXELS).to(x), square(TO_PIXELS).to(x).T
    for count, (images, rows) in enumerate(grid.parts()):
        pixels = squares[images, :, rows].permute(3, 5, 1, 0, 2, 4).reshape(OUT**2, -1)
        of_products = (to_products @ pixels).view(IN**2, outputs, -1)
        seen = _transformed(from_pixels, windows[images, :, rows])
        products.baddbmm_(of_products, seen.mT, beta=min(count, 1))
    kernels = square(FROM_KERNEL).to(x).T @ products.flatten(1)
    return kernels.view(3, 3, outputs, channels).permute(2, 3, 0, 1).contiguous()


def pays(x: Tensor, least: int) -> bool:
    """Tell whether maps `(B, C, H, W)` have that many tiles, most of which they fill."""
    grid = _Grid(x)
    return len(x) * grid.rows * grid.columns >= least and share_of_products(*x.shape[2:]) <= 0.5


class _Grid:
    """The tiles of maps `(B, C, H, W)`: squares of 4x4 pixels, and the windows of 6x6 around them."""

    def __init__(self, x: Tensor) -> None:
        self.images, (height, width) = len(x), x.shape[2:]
        self.rows, self.columns = -(-height // OUT), -(-width // OUT)
        self.below, self.right = self.rows * OUT - height, self.columns * OUT - width

    def parts(self) -> Iterator[tuple[slice, slice]]:
        """Yield images and rows of tiles."""
        rows = max(1, min(self.rows, _TILES // self.columns))
        images = max(1, _TILES // (self.columns * rows))
        for first in range(0, self.images, images):
            for top in range(0, self.rows, rows):
                yield slice(first, first + images), slice(top, top + rows)

    def windows(self, x: Tensor) -> Tensor:
        """Return `(B, C, rows, columns, 6, 6)`."""
        padded = F.pad(x, (1, self.right + 1, 1, self.below + 1))
        return padded.unfold(2, IN, OUT).unfold(3, IN, OUT)

    def squares(self, x: Tensor) -> Tensor:
        """Return `(B, C, rows, 4, columns, 4)`."""
        if self.right or self.below:
            x = F.pad(x, (0, self.right, 0, self.below))
        return x.unflatten(3, (self.columns, OUT)).unflatten(2, (self.rows, OUT))


def _transformed(from_pixels: Tensor, windows: Tensor) -> Tensor:
    """Return the transformed pixels `(36, C, tiles)` of `(B, C, rows, columns, 6, 6)`."""
    channels = windows.shape[1]
    pixels = windows.permute(4, 5, 1, 0, 2, 3).reshape(IN**2, -1)
    return (from_pixels @ pixels).view(IN**2, channels, -1)
