"""Small things that everything relies on."""

from __future__ import annotations

from fastfcn_pl.contracts import distinct_colors, listed


def test_colours_are_those_of_pascal_voc_and_differ() -> None:
    """The first ones as the development kit of VOC 2012 has them; white stays for ignored pixels."""
    colors = distinct_colors(255)
    assert colors[:4] == ((0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0))
    assert colors[20] == (0, 64, 128)  # tvmonitor
    assert len(set(colors)) == 255
    assert max(map(min, colors)) < 255


def test_of_a_long_list_the_first_are_shown() -> None:
    assert listed([1, 2], most=2) == "1, 2"
    assert listed([1, 2, 3, 4], most=2) == "1, 2 and 2 more"
