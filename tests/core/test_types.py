"""Formatting of lists in messages."""

from __future__ import annotations

from fastfcn_pl.core.types import listed


def test_a_long_list_is_cut_off() -> None:
    assert listed([1, 2], most=2) == "1, 2"
    assert listed([1, 2, 3, 4], most=2) == "1, 2 and 2 more"
