"""Small things that everything relies on."""

from __future__ import annotations

from fastfcn_pl.core.types import listed


def test_of_a_long_list_the_first_are_shown() -> None:
    assert listed([1, 2], most=2) == "1, 2"
    assert listed([1, 2, 3, 4], most=2) == "1, 2 and 2 more"
