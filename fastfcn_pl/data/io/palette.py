"""Colour map of the PASCAL VOC development kit, for label ids of any data set."""

from __future__ import annotations

from collections.abc import Iterable


def voc_colors(ids: Iterable[int]) -> tuple[tuple[int, int, int], ...]:
    """Return the RGB colour of each id, 0 to 255, as in `VOClabelcolormap.m`; all differ, and 0 is black.

    The lowest three bits of an id are the highest bits of red, green and blue; its next three bits come below them.
    """
    return tuple((_channel(i), _channel(i >> 1), _channel(i >> 2)) for i in ids)


def _channel(bits: int) -> int:
    """Return every third bit of an id as a byte, the lowest one first."""
    return sum((bits >> 3 * k & 1) << 7 - k for k in range(3))
