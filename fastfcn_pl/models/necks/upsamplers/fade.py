"""FADE: fusing the assets of decoder and encoder (arXiv 2207.10392)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from fastfcn_pl.models.layers import initialize_convs
from fastfcn_pl.models.necks.upsamplers.reassembly import cells, fit, reassemble
from fastfcn_pl.models.requirements import check_odd, check_scale


class FADE(nn.Module):
    """Reassembly by kernels that are predicted from both maps (section 3): `(B, C, h, w)` to `(B, C, H, W)`.

    Both maps are compressed and encoded by the same convolution (semi-shift), and their logits are added. With `gated`
    the result is mixed with `fine` by a gate that is predicted from the small map. The `lite` variant compresses to the
    kernel's size, and its encoder is depthwise. Borders darken as in CARAFE. Faithful to the published code.
    """

    def __init__(
        self,
        channels: int,
        align_corners: bool,
        scale: int,
        *,
        kernel_size: int,
        compressed_channels: int,
        encoder_kernel_size: int,
        gated: bool,
        lite: bool,
    ) -> None:
        super().__init__()
        check_scale("FADE", scale)
        check_odd("model.neck.upsampler.kernel_size", kernel_size)
        check_odd("model.neck.upsampler.encoder_kernel_size", encoder_kernel_size)
        self.kernel_size, self.scale = kernel_size, scale
        weights = kernel_size**2
        width, groups = (weights, weights) if lite else (compressed_channels, 1)
        self.compress_fine = nn.Conv2d(channels, width, 1)
        self.compress_coarse = nn.Conv2d(channels, width, 1, bias=False)
        padding = encoder_kernel_size // 2
        self.encode = nn.Conv2d(width, weights, encoder_kernel_size, padding=padding, groups=groups)
        self.gate = nn.Conv2d(channels, 1, 1) if gated else None
        initialize_convs(self, nn.init.xavier_uniform_)

    def kernels(self, coarse: Tensor, fine: Tensor) -> Tensor:
        """Return the weights of each new pixel: `(B, h, w, 1, scale^2, kernel_size^2)`."""
        fine_logits = cells(self.encode(self.compress_fine(fine)), coarse, self.scale)
        coarse_logits = self.encode(self.compress_coarse(coarse)).permute(0, 2, 3, 1).unsqueeze(3)
        return (fine_logits + coarse_logits).softmax(-1).unsqueeze(3)

    def forward(self, coarse: Tensor, fine: Tensor) -> Tensor:
        large = reassemble(coarse, self.kernels(coarse, fine), self.kernel_size, self.scale, fine)
        if self.gate is None:
            return large
        gate = F.interpolate(self.gate(coarse).sigmoid(), scale_factor=float(self.scale), mode="nearest")
        gate = fit(gate, *fine.shape[-2:])
        return gate * fine + (1 - gate) * large
