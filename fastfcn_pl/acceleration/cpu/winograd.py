"""3x3 convolutions with a quarter of the multiplications: Winograd's F(4x4, 3x3), for maps in channels_last.

In float32 the result is off by up to 4e-5 of its spread, that of a plain convolution by 1e-5.
"""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastfcn_pl.ops.space_to_batch import convolve_phases

_Matrix = tuple[tuple[float, ...], ...]
# Fast Algorithms for Convolutional Neural Networks (arXiv 1509.09308), section 4.3: the transforms of a row of 6
# pixels, of a row of the kernel's 3, and of the 6 products, which become 4 pixels.
_FROM_PIXELS: _Matrix = (
    (4, 0, -5, 0, 1, 0),
    (0, -4, -4, 1, 1, 0),
    (0, 4, -4, -1, 1, 0),
    (0, -2, -1, 2, 1, 0),
    (0, 2, -1, -2, 1, 0),
    (0, 4, 0, -5, 0, 1),
)
_FROM_KERNEL: _Matrix = (
    (1 / 4, 0, 0),
    (-1 / 6, -1 / 6, -1 / 6),
    (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6),
    (1 / 24, -1 / 12, 1 / 6),
    (0, 0, 1),
)
_TO_PIXELS: _Matrix = (
    (1, 1, 1, 1, 1, 0),
    (0, 1, -1, 2, -2, 0),
    (0, 1, 1, 4, 4, 0),
    (0, 1, -1, 8, -8, 1),
)
_IN, _OUT = 6, 4
# Computed at a time: malloc takes fresh pages for each tensor of 32 MB or more, which are several times as slow.
_TILES, _CHANNELS = 256, 512


def can_convolve(conv: nn.Conv2d) -> bool:
    """Tell whether `convolve` computes what `conv`, a plain convolution, does."""
    keeps_size = conv.padding == conv.dilation == (conv.dilation[0],) * 2
    return conv.kernel_size == (3, 3) and conv.stride == (1, 1) and conv.groups == 1 and keeps_size


def transform_kernel(weight: Tensor) -> Tensor:
    """Return the matrices `(36, C, O)` of a weight `(O, C, 3, 3)`."""
    pixels = weight.double().permute(2, 3, 1, 0)  # (3, 3, C, O)
    matrices = _square(_FROM_KERNEL) @ pixels.flatten(2).flatten(0, 1)
    return matrices.view(_IN**2, *pixels.shape[2:]).to(weight.dtype)


def convolve(x: Tensor, kernel: Tensor, bias: Tensor | None, dilation: int) -> Tensor:
    """Convolve `(B, C, H, W)` to `(B, O, H, W)` in channels_last; `kernel` is what `transform_kernel` returns.

    Each tile of 6 x 6 pixels becomes 36 rows, each is multiplied with its own matrix, and the products become 4 x 4
    pixels. Phases of pixels that are `dilation` apart are convolved as images of their own.
    """
    if dilation == 1:
        out = _convolve(x.permute(0, 2, 3, 1), kernel, bias).permute(0, 3, 1, 2)
    else:
        out = convolve_phases(x, dilation, lambda phases: _convolve(phases, kernel, bias))
    return out.contiguous(memory_format=torch.channels_last)


def _convolve(x: Tensor, kernel: Tensor, bias: Tensor | None) -> Tensor:
    """Convolve `(B, H, W, C)` without dilation."""
    batch, height, width, channels = x.shape
    rows, columns = -(-height // _OUT), -(-width // _OUT)
    x = F.pad(x, (0, 0, 1, columns * _OUT - width + 1, 1, rows * _OUT - height + 1))
    tiles = x.unfold(1, _IN, _OUT).unfold(2, _IN, _OUT).permute(4, 5, 0, 1, 2, 3)  # (6, 6, B, rows, columns, C)
    from_pixels, to_pixels = _square(_FROM_PIXELS).to(x), _square(_TO_PIXELS).to(x)
    out = x.new_empty(batch, rows, _OUT, columns, _OUT, kernel.shape[2])
    step = max(1, _TILES // (batch * columns))
    for top in range(0, rows, step):
        band = tiles[:, :, :, top : top + step]
        count = batch * columns * band.shape[3]
        products = x.new_zeros(_IN**2, count, kernel.shape[2])
        for first in range(0, channels, _CHANNELS):
            some = slice(first, first + _CHANNELS)
            pixels = from_pixels @ band[..., some].reshape(_IN**2, -1)
            products.baddbmm_(pixels.view(_IN**2, count, -1), kernel[:, some])
        squares = (to_pixels @ products.flatten(1)).view(_OUT, _OUT, *band.shape[2:5], -1)
        out[:, top : top + step] = squares.permute(2, 3, 0, 4, 1, 5)
    if bias is not None:
        out += bias
    return out.flatten(3, 4).flatten(1, 2)[:, :height, :width]


def share_of_products(height: int, width: int, dilation: int = 1) -> float:
    """Return Winograd's multiplications for a map of this size, without transforms, over a plain convolution's."""
    rows, columns = (-(-side // (dilation * _OUT)) * dilation for side in (height, width))
    return _IN**2 * rows * columns / (9 * height * width)


@functools.cache
def _square(matrix: _Matrix) -> Tensor:
    """Return the matrix that transforms the rows and the columns of a flattened square, in float64."""
    rows = torch.tensor(matrix, dtype=torch.float64)
    return torch.kron(rows, rows)
