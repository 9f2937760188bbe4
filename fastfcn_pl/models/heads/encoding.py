"""The encoding layer (Deep TEN; EncNet, section 3.1)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Encoding(nn.Module):
    """Residuals to `num_codes` learned codewords, summed under soft assignment: `(B, C, H, W)` to `(B, num_codes, C)`.

    With assignments A and codewords D, the sum over pixels of `A (x - d)` is `A^T X - (sum of A) D`. The squared
    distances come from a matrix product, too, so that no tensor of pixels x codewords x channels is ever built. It
    computes in float32 at least. Faithful to `Encoding` in the official `encoding/nn/encoding.py`.
    """

    def __init__(self, channels: int, num_codes: int) -> None:
        super().__init__()
        bound = (num_codes * channels) ** -0.5
        self.codewords = nn.Parameter(torch.empty(num_codes, channels).uniform_(-bound, bound))
        self.scale = nn.Parameter(torch.empty(num_codes).uniform_(-1, 0))

    def forward(self, x: Tensor) -> Tensor:
        device = "cpu" if x.is_meta else x.device.type  # meta tensors have no autocast
        with torch.autocast(device, enabled=False):
            pixels = x.flatten(2).transpose(1, 2)  # (B, N, C)
            pixels = pixels if pixels.dtype == torch.float64 else pixels.float()
            codewords, scale = self.codewords.to(pixels.dtype), self.scale.to(pixels.dtype)
            products = pixels @ codewords.T.expand(pixels.shape[0], -1, -1)  # torch copies pixels for one matrix
            distances = pixels.square().sum(2, keepdim=True) - 2 * products + codewords.square().sum(1)
            assignment = (scale * distances).softmax(dim=2)  # (B, N, K)
            return assignment.transpose(1, 2) @ pixels - assignment.sum(1).unsqueeze(2) * codewords
