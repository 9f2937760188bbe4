"""Numbers of charts: bins, the Pareto front, and names that cover nothing."""

from __future__ import annotations

import re

import numpy as np
import pytest

from fastfcn_pl.reports.figures import Curve, Point, alone, binned, curves, inline, pareto, scatter


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
    """Return where a name stands, without the room that is left around it."""
    found = re.search(rf"<text[^>]*?(?:text-anchor: (\w+))?[^>]*?translate\(([\d.]+) ([\d.]+)\)[^>]*>{name}<", svg)
    if found is None:
        found = re.search(rf'<text[^>]*?()x="([\d.]+)" y="([\d.]+)"[^>]*>{name}<', svg)
    assert found is not None, name
    x, y, width = float(found[2]), float(found[3]), 4.0 * len(name)
    return x + 1, y - 5, x + width - 4, y


def test_a_chart_stands_alone_or_takes_the_colour_of_its_page() -> None:
    svg = curves([Curve("<a> & b", [[(0, 0.1), (5, 0.4)]])], "mIoU", percent=True)
    assert "&lt;a&gt; &amp; b" in svg
    assert "currentColor" in inline(svg)
    assert "#010203" not in inline(svg) + alone(svg)
    assert 'fill="#ffffff"' in alone(svg)
    assert not re.search(r' id="\w+_\d+"', inline(svg))
    assert curves([Curve("x", [[(0, 0.1)]])], "t") == curves([Curve("x", [[(0, 0.1)]])], "t")
