"""CARAFE: content-aware reassembly of features (arXiv 1905.02188)."""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn

from fastfcn_pl.models.layers import initialize_convs
from fastfcn_pl.models.necks.upsamplers.reassembly import reassemble
from fastfcn_pl.models.requirements import check_divides, check_odd, check_scale


class CARAFE(nn.Module):
    """Reassembly by kernels that are predicted from the small map (section 3.2): `(B, C, h, w)` to `(B, C, H, W)`.

    The kernels of a pixel sum to 1. Weights of pixels outside of the map are lost, so that borders darken. Faithful to
    `CARAFEPack` of mmcv: no norm and no activation between the two convolutions.
    """

    def __init__(
        self,
        channels: int,
        align_corners: bool,
        scale: int,
        *,
        kernel_size: int,
        groups: int,
        compressed_channels: int,
        encoder_kernel_size: int,
        encoder_dilation: int,
    ) -> None:
        super().__init__()
        check_scale("CARAFE", scale)
        check_odd("model.neck.upsampler.kernel_size", kernel_size)
        check_odd("model.neck.upsampler.encoder_kernel_size", encoder_kernel_size)
        check_divides("model.neck.upsampler.groups", groups, channels)
        self.kernel_size, self.groups, self.scale = kernel_size, groups, scale
        self.compress = nn.Conv2d(channels, compressed_channels, 1)
        padding = encoder_dilation * (encoder_kernel_size // 2)
        weights = groups * kernel_size**2 * scale**2
        self.encode = nn.Conv2d(
            compressed_channels, weights, encoder_kernel_size, padding=padding, dilation=encoder_dilation
        )
        initialize_convs(self.compress, nn.init.xavier_uniform_)
        initialize_convs(self.encode, partial(nn.init.normal_, std=0.001))

    def kernels(self, coarse: Tensor) -> Tensor:
        """Return the weights of each new pixel: `(B, h, w, groups, scale^2, kernel_size^2)`."""
        logits = self.encode(self.compress(coarse)).unflatten(1, (self.groups, self.kernel_size**2, self.scale**2))
        return logits.softmax(2).permute(0, 4, 5, 1, 3, 2)

    def forward(self, coarse: Tensor, fine: Tensor) -> Tensor:
        return reassemble(coarse, self.kernels(coarse), self.kernel_size, self.scale, fine)
