"""DySample: upsampling by dynamic sampling (arXiv 2308.15085)."""

from __future__ import annotations

from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastfcn_pl.core.types import UserError
from fastfcn_pl.models.layers import initialize_convs
from fastfcn_pl.models.necks.upsamplers.reassembly import fit
from fastfcn_pl.models.requirements import check_choice, check_divides, check_scale
from fastfcn_pl.ops.grid_sample import grid_sample, position_dtype


class DySample(nn.Module):
    """Bilinear sampling at predicted positions (section 3.2): `(B, C, h, w)` to `(B, C, H, W)`.

    Offsets are predicted from the map and then shuffled to the large size (`style` `lp`), or the other way round
    (`pl`). They are shared by the channels of a group. Their scope is 0.25 pixels of the small map, or up to 0.5
    and predicted (`dynamic_scope`). Offsets of 0 give bilinear interpolation without `align_corners`. Faithful to the
    published code.
    """

    def __init__(
        self,
        channels: int,
        align_corners: bool,
        scale: int,
        *,
        style: Literal["lp", "pl"],
        groups: int,
        dynamic_scope: bool,
    ) -> None:
        super().__init__()
        check_scale("DySample", scale)
        check_divides("model.neck.upsampler.groups", groups, channels)
        check_choice("model.neck.upsampler.style", style, ("lp", "pl"))
        self.scale, self.groups, self.style = scale, groups, style
        shuffled = scale**2
        if style == "pl" and channels % shuffled:
            raise UserError(f"model.neck.width={channels}: use a multiple of {shuffled} for DySample's style pl")
        sizes = (channels, 2 * groups * shuffled) if style == "lp" else (channels // shuffled, 2 * groups)
        self.offset = nn.Conv2d(*sizes, 1)
        self.scope = nn.Conv2d(*sizes, 1, bias=False) if dynamic_scope else None
        initialize_convs(self.offset, partial(nn.init.normal_, std=0.001))
        if self.scope is not None:
            initialize_convs(self.scope, nn.init.zeros_)

    def offsets(self, coarse: Tensor) -> Tensor:
        """Return the horizontal and vertical offsets of each new pixel, in pixels of `coarse`: `(B, 2 * groups, ...)`.

        The last dimensions are `scale * h` and `scale * w`.
        """
        x = coarse if self.style == "lp" else F.pixel_shuffle(coarse, self.scale)
        offsets = self.offset(x) * (0.25 if self.scope is None else 0.5 * self.scope(x).sigmoid())
        return F.pixel_shuffle(offsets, self.scale) if self.style == "lp" else offsets

    def forward(self, coarse: Tensor, fine: Tensor) -> Tensor:
        (height, width), (rows, columns) = coarse.shape[-2:], fine.shape[-2:]
        offsets = fit(self.offsets(coarse), rows, columns).to(position_dtype(coarse)).unflatten(1, (2, self.groups))
        x = (self._centres(columns, offsets) + offsets[:, 0]) * 2 / width - 1
        y = (self._centres(rows, offsets).unsqueeze(-1) + offsets[:, 1]) * 2 / height - 1
        groups = coarse.unflatten(1, (self.groups, -1)).flatten(0, 1)
        sampled = grid_sample(groups, x.flatten(0, 1), y.flatten(0, 1), "border", align_corners=False)
        return sampled.unflatten(0, (-1, self.groups)).flatten(1, 2)

    def _centres(self, length: int, like: Tensor) -> Tensor:
        """Return the centres of a side's new pixels, in pixels of the small map."""
        return (torch.arange(length, dtype=like.dtype, device=like.device) + 0.5) / self.scale
