"""Requirements of values in YAML. Each raises UserError that names the key."""

from __future__ import annotations

from collections.abc import Sequence

from fastfcn_pl.core.types import UserError


def check_choice(key: str, name: str, choices: Sequence[str]) -> None:
    """Raise UserError if `name` is none of the choices."""
    if name not in choices:
        raise UserError(f"{key}={name}: use {', '.join(choices[:-1])} or {choices[-1]}")


def check_bins(key: str, bins: Sequence[int], least: int = 0) -> None:
    """Raise UserError if a pool would have no cells, or if there are fewer pools than `least`."""
    if len(bins) < least or any(size < 1 for size in bins):
        raise UserError(f"{key}={list(bins)}: a pool needs one cell a side at least: use numbers such as [1, 2, 4]")


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
        raise UserError(f"{key}={size}: use an odd number")


def check_divides(key: str, parts: int, channels: int) -> None:
    """Raise UserError if the channels of a neck cannot be divided into so many parts."""
    if parts < 1 or channels % parts:
        raise UserError(f"{key}={parts} does not divide the {channels} channels of model.neck.width")
