"""Charts: bins, the Pareto front, and labels that do not overlap."""

from __future__ import annotations

import re
from itertools import combinations

import numpy as np
import pytest

from fastfcn_pl.evaluation import visualize
from fastfcn_pl.tools.report.figures import (
    COLORS,
    MAX_STYLED,
    Curve,
    Point,
    binned,
    curves,
    for_file,
    for_html,
    pareto,
    scatter,
    style,
)


def test_the_front_holds_what_nothing_beats() -> None:
    points = [
        Point(str(i), cost, score, None, True)
        for i, (cost, score) in enumerate([(3, 0.9), (1, 0.5), (2, 0.4), (1, 0.4)])
    ]
    unfinished = Point("?", 0.5, 0.95, None, False)
    assert [point.name for point in pareto([*points, unfinished, None])] == ["1", "0"]


def test_few_common_steps_are_kept_and_many_are_averaged() -> None:
    steps, values = binned([[(0, 1.0), (10, 2.0), (20, 3.0)], [(0, 3.0), (10, 4.0)]])
    assert steps.tolist() == [0, 10]  # as far as both came
    assert values.tolist() == [[1, 2], [3, 4]]
    long = [(step, float(step % 2)) for step in range(1000)]
    steps, values = binned([long])
    assert values.shape == (1, 100)
    assert values == pytest.approx(0.5)
    assert np.all(np.diff(steps) > 0)


@pytest.mark.slow
def test_names_cover_neither_each_other_nor_a_point() -> None:
    rng = np.random.default_rng(0)
    points = [
        Point(f"name {i}", float(x), float(y), None, True) for i, (x, y) in enumerate(rng.uniform(0.2, 0.8, (25, 2)))
    ]
    svg, unnamed = scatter(points, "GMACs")
    placed = re.findall(r"<text[^>]*>(name \d+)</text>", svg)
    assert len(placed) + unnamed == 25
    assert len(placed) == len(set(placed)) > 5
    boxes = [_box(svg, name) for name in placed]
    for i, (x0, y0, x1, y1) in enumerate(boxes):
        assert not any(x0 < a1 and a0 < x1 and y0 < b1 and b0 < y1 for a0, b0, a1, b1 in boxes[:i])


def _box(svg: str, name: str) -> tuple[float, float, float, float]:
    """Return the box of a label, without its margin."""
    found = re.search(rf"<text[^>]*?(?:text-anchor: (\w+))?[^>]*?translate\(([\d.]+) ([\d.]+)\)[^>]*>{name}<", svg)
    if found is None:
        found = re.search(rf'<text[^>]*?()x="([\d.]+)" y="([\d.]+)"[^>]*>{name}<', svg)
    assert found is not None, name
    x, y, width = float(found[2]), float(found[3]), 4.0 * len(name)
    return x + 1, y - 5, x + width - 4, y


def test_a_chart_stands_alone_or_takes_the_colour_of_its_page() -> None:
    svg = curves([Curve("<a> & b", [[(0, 0.1), (5, 0.4)]])], "mIoU", percent=True)
    assert "&lt;a&gt; &amp; b" in svg
    assert "currentColor" in for_html(svg)
    assert "#010203" not in for_html(svg) + for_file(svg)
    assert 'fill="#ffffff"' in for_file(svg)
    assert not re.search(r' id="\w+_\d+"', for_html(svg))
    assert curves([Curve("x", [[(0, 0.1)]])], "t") == curves([Curve("x", [[(0, 0.1)]])], "t")


# What dichromats see of linear RGB: Machado, Oliveira, Fernandes, A Physiologically-based Model for Simulation of Color
# Vision Deficiency, IEEE TVCG 15(6), 2009, severity 1.
EYES = {
    "all cones": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "tritanopia": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}


def _lab(rgb: tuple[int, ...], eye: np.ndarray) -> np.ndarray:
    """Return the CIE L*a*b* (D65) of a colour as that eye sees it."""
    linear = np.array([(v / 12.92) if (v := c / 255) <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for c in rgb])
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = to_xyz @ np.clip(eye @ linear, 0, 1) / to_xyz.sum(1)
    x, y, z = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("eye", EYES)
def test_colours_that_we_choose_are_told_apart_by_every_eye(eye: str) -> None:
    """A difference of 10 in L*a*b* is seen at a glance; red and green of equal lightness differ by less than 4."""
    charts = [tuple(bytes.fromhex(color[1:])) for color in COLORS]
    for pair in [*combinations(charts, 2), (visualize._CORRECT, visualize._WRONG)]:
        a, b = (_lab(color, EYES[eye]) for color in pair)
        assert np.linalg.norm(a - b) > 10, pair
    assert len({style(i) for i in range(MAX_STYLED)}) == MAX_STYLED, "groups of one colour differ by their line"
