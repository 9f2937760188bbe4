"""Requirements of upsamplers with weights."""

from __future__ import annotations

from fastfcn_pl.core.types import UserError


def check_scale(operator: str, scale: int) -> None:
    """Raise UserError if the map would keep its size, as between the levels of a dilated backbone."""
    if scale < 2:
        raise UserError(
            f"{operator} enlarges maps, but two levels that the neck joins have the same stride: use "
            "model/neck/upsampler=bilinear, or model.backbone.output_stride=32"
        )


def check_odd(key: str, size: int) -> None:
    """Raise UserError if a kernel of this size has no centre."""
    if size < 1 or size % 2 == 0:
        raise UserError(f"model.neck.upsampler.{key}={size}: use an odd number")


def check_divides(key: str, parts: int, channels: int) -> None:
    """Raise UserError if the channels cannot be divided into so many parts."""
    if parts < 1 or channels % parts:
        raise UserError(
            f"model.neck.upsampler.{key}={parts} does not divide the {channels} channels of model.neck.width"
        )
