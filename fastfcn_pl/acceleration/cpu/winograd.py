"""3x3 convolutions with a quarter of the multiplications: Winograd's F(4x4, 3x3)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastfcn_pl.ops.space_to_batch import in_phases

_Matrix = tuple[tuple[float, ...], ...]
# Fast Algorithms for Convolutional Neural Networks (arXiv 1509.09308), section 4.3: what is made of a row of 6 pixels,
# of a row of the kernel's 3, and of the 6 products the 4 pixels that come out.
FROM_PIXELS: _Matrix = (
    (4, 0, -5, 0, 1, 0),
    (0, -4, -4, 1, 1, 0),
    (0, 4, -4, -1, 1, 0),
    (0, -2, -1, 2, 1, 0),
    (0, 2, -1, -2, 1, 0),
    (0, 4, 0, -5, 0, 1),
)
FROM_KERNEL: _Matrix = (
    (1 / 4, 0, 0),
    (-1 / 6, -1 / 6, -1 / 6),
    (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6),
    (1 / 24, -1 / 12, 1 / 6),
    (0, 0, 1),
)
TO_PIXELS: _Matrix = (
    (1, 1, 1, 1, 1, 0),
    (0, 1, -1, 2, -2, 0),
    (0, 1, 1, 4, 4, 0),
    (0, 1, -1, 8, -8, 1),
)
IN, OUT = 6, 4
# At a time: malloc takes fresh pages for each tensor of 32 MB or more, which makes them several times as slow.
_TILES, _CHANNELS = 256, 512


class WinogradConv(nn.Module):
    """A 3x3 convolution of stride 1 that keeps the size, and the activation behind it, if any.

    `(B, C, H, W)` to `(B, C', H, W)` in channels_last: each tile of 6 x 6 pixels becomes 36 rows, each is multiplied
    with a matrix of its own, and 4 x 4 pixels come of the products. A dilated convolution is one for each phase of
    pixels that are `dilation` apart. In float32 the result is off by up to 4e-5 of its spread, a plain one's by 1e-5.
    """

    weight: Tensor
    bias: Tensor | None
    from_pixels: Tensor
    to_pixels: Tensor

    def __init__(self, conv: nn.Conv2d, activation: nn.Module | None) -> None:
        super().__init__()
        self.dilation, self.activation, dtype = conv.dilation[0], activation, conv.weight.dtype
        kernel = conv.weight.detach().double().permute(2, 3, 1, 0).flatten(0, 1)  # (9, C, C')
        weight = square(FROM_KERNEL) @ kernel.flatten(1)
        self.register_buffer("weight", weight.view(IN**2, *kernel.shape[1:]).to(dtype))
        self.register_buffer("bias", None if conv.bias is None else conv.bias.detach())
        self.register_buffer("from_pixels", square(FROM_PIXELS).to(dtype))
        self.register_buffer("to_pixels", square(TO_PIXELS).to(dtype))

    @staticmethod
    def can(conv: nn.Conv2d) -> bool:
        """Tell whether `conv` is a convolution that this one can stand for."""
        keeps_size = conv.padding == conv.dilation == (conv.dilation[0],) * 2
        return conv.kernel_size == (3, 3) and conv.stride == (1, 1) and conv.groups == 1 and keeps_size

    def products(self, height: int, width: int) -> float:
        """Return `share_of_products` of maps of this size."""
        return share_of_products(height, width, self.dilation)

    def forward(self, x: Tensor) -> Tensor:
        if self.dilation > 1:
            out = in_phases(x, self.dilation, self._convolve)
        else:
            out = self._convolve(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        out = out.contiguous(memory_format=torch.channels_last)
        return out if self.activation is None else self.activation(out)

    def _convolve(self, x: Tensor) -> Tensor:
        """Convolve `(B, H, W, C)` without dilation."""
        batch, height, width, channels = x.shape
        rows, columns = -(-height // OUT), -(-width // OUT)
        x = F.pad(x, (0, 0, 1, columns * OUT - width + 1, 1, rows * OUT - height + 1))
        tiles = x.unfold(1, IN, OUT).unfold(2, IN, OUT).permute(4, 5, 0, 1, 2, 3)  # (6, 6, B, rows, columns, C)
        out = x.new_empty(batch, rows, OUT, columns, OUT, self.weight.shape[2])
        step = max(1, _TILES // (batch * columns))
        for top in range(0, rows, step):
            band = tiles[:, :, :, top : top + step]
            count = batch * columns * band.shape[3]
            products = x.new_zeros(IN**2, count, self.weight.shape[2])
            for first in range(0, channels, _CHANNELS):
                some = slice(first, first + _CHANNELS)
                seen = self.from_pixels @ band[..., some].reshape(IN**2, -1)
                products.baddbmm_(seen.view(IN**2, count, -1), self.weight[:, some])
            pixels = (self.to_pixels @ products.flatten(1)).view(OUT, OUT, *band.shape[2:5], -1)
            out[:, top : top + step] = pixels.permute(2, 3, 0, 4, 1, 5)
        if self.bias is not None:
            out += self.bias
        return out.flatten(3, 4).flatten(1, 2)[:, :height, :width]


def share_of_products(height: int, width: int, dilation: int = 1) -> float:
    """Return Winograd's multiplications for a map of this size, transforms left out, over a plain convolution's."""
    rows, columns = (-(-side // (dilation * OUT)) * dilation for side in (height, width))
    return IN**2 * rows * columns / (9 * height * width)


def square(matrix: _Matrix) -> Tensor:
    """Return what transforms the rows and the columns of a flattened square, in float64."""
    of_rows = torch.tensor(matrix, dtype=torch.float64)
    return torch.kron(of_rows, of_rows)
