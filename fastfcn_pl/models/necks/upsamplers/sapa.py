"""SAPA: similarity-aware point affiliation (arXiv 2209.12866)."""

from __future__ import annotations

from functools import partial
from typing import Literal

from torch import Tensor, nn

from fastfcn_pl.models.layers import initialize_convs, norm_layer
from fastfcn_pl.models.necks.upsamplers.reassembly import cells, reassemble, windows
from fastfcn_pl.models.requirements import check_choice, check_divides, check_odd, check_scale


class SAPA(nn.Module):
    """Reassembly by the similarity of fine pixels to coarse ones (section 3.3): `(B, C, h, w)` to `(B, C, H, W)`.

    The kernel of a new pixel is the softmax of the products of its embedding with those of a window. Pixels outside of
    the map have the product 0 and the value 0, so that borders darken. Faithful to the base variant of the published
    code, which scales no product; `norm` is `layer` there, and `group` or `none` in its later version.
    """

    def __init__(
        self,
        channels: int,
        align_corners: bool,
        scale: int,
        *,
        kernel_size: int,
        embedding_channels: int,
        norm: Literal["layer", "group", "none"],
        norm_groups: int,
    ) -> None:
        super().__init__()
        check_scale("SAPA", scale)
        check_odd("model.neck.upsampler.kernel_size", kernel_size)
        self.kernel_size, self.scale = kernel_size, scale
        check_choice("model.neck.upsampler.norm", norm, ("layer", "group", "none"))
        if norm == "group":
            check_divides("model.neck.upsampler.norm_groups", norm_groups, channels)
        self.norm_fine, self.norm_coarse = (norm_layer(norm, channels, norm_groups) for _ in range(2))
        self.query, self.key = (nn.Conv2d(channels, embedding_channels, 1) for _ in range(2))
        initialize_convs(self, partial(nn.init.normal_, std=0.02))

    def kernels(self, coarse: Tensor, fine: Tensor) -> Tensor:
        """Return the weights of each new pixel: `(B, h, w, 1, scale^2, kernel_size^2)`."""
        queries = cells(self.query(self.norm_fine(fine)), coarse, self.scale).unsqueeze(3)
        keys = windows(self.key(self.norm_coarse(coarse)), self.kernel_size)
        return (queries @ keys.transpose(-2, -1)).softmax(-1)

    def forward(self, coarse: Tensor, fine: Tensor) -> Tensor:
        return reassemble(coarse, self.kernels(coarse, fine), self.kernel_size, self.scale, fine)
