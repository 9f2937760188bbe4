"""Regions against slow references."""

from __future__ import annotations

import numpy as np
import pytest

from fastfcn_pl.tools.prepare.annotations.regions import Bitmap, Polygons, Region, corners, ellipse, fill, rectangle


def _canvas(region: Region, height: int, width: int) -> np.ndarray:
    canvas, patch = np.zeros((height, width), int), region.draw(height, width)
    canvas[patch.top : patch.top + patch.mask.shape[0], patch.left : patch.left + patch.mask.shape[1]] += patch.mask
    return canvas


def _is_inside(x: float, y: float, ring: np.ndarray) -> bool:
    """Count the edges to the left of a point, one by one."""
    inside = False
    for (x0, y0), (x1, y1) in zip(ring, np.roll(ring, -1, 0), strict=True):
        if (y0 <= y) != (y1 <= y) and x0 + (y - y0) / (y1 - y0) * (x1 - x0) <= x:
            inside = not inside
    return inside


@pytest.mark.parametrize("seed", range(20))
def test_a_polygon_covers_the_centres_inside_it(seed: int) -> None:
    """Any corners, so most polygons cross themselves, and many reach out of the image."""
    rng = np.random.default_rng(seed)
    ring = rng.uniform(-8, 25, (rng.integers(1, 12), 2))
    if seed % 4 == 0:
        ring = ring.round()
    expected = [[_is_inside(x + 0.5, y + 0.5, ring) for x in range(17)] for y in range(13)]
    assert _canvas(Polygons([ring]), 13, 17).tolist() == expected


def test_polygons_that_share_edges_cover_each_pixel_once() -> None:
    """Also along edges that run through centres."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:5, :5] * 4.0
    grid = np.stack([x, y], 2) + np.where((x % 16 == 0) | (y % 16 == 0), 0, rng.integers(-2, 3, (2, 5, 5)) / 2).T
    cells = [grid[[i, i, i + 1, i + 1], [j, j + 1, j + 1, j]] for i in range(4) for j in range(4)]
    assert (sum(_canvas(Polygons([cell]), 16, 16) for cell in cells) == 1).all()


def test_the_polygons_of_a_region_are_joined() -> None:
    both = Polygons([rectangle(1, 1, 4, 4), rectangle(3, 2, 7, 6)])
    expected = _canvas(Polygons(both.rings[:1]), 6, 8) | _canvas(Polygons(both.rings[1:]), 6, 8)
    assert np.array_equal(_canvas(both, 6, 8), expected)
    assert _canvas(Polygons([]), 6, 8).sum() == 0


def test_what_is_far_outside_covers_nothing() -> None:
    for ring in (rectangle(-50, -50, -40, -40), rectangle(90, 0, 99, 5), rectangle(0, 90, 5, 99), corners([[3, 3]])):
        assert fill(ring, 6, 8).mask.sum() == 0
    assert _canvas(Polygons([rectangle(-1e6, -1e6, 1e6, 1e6)]), 6, 8).all()


def test_a_bitmap_is_cut_off_at_the_borders() -> None:
    mask = np.arange(12).reshape(3, 4) % 2 == 0
    canvas = np.zeros((20, 20), int)
    for top, left in ((-2, 3), (4, -3), (5, 6), (-9, 0), (9, 9), (0, -9)):
        canvas[:] = 0
        canvas[top + 10 : top + 13, left + 10 : left + 14] = mask[: 10 - top, : 10 - left]
        assert np.array_equal(_canvas(Bitmap(top, left, lambda: mask), 6, 8), canvas[10:16, 10:18])


def test_an_ellipse_covers_the_centres_inside_it() -> None:
    y, x = np.mgrid[:30, :40] + 0.5
    expected = ((x - 18.3) / 11.7) ** 2 + ((y - 14.1) / 8.2) ** 2 < 1
    assert np.array_equal(_canvas(Polygons([ellipse(18.3, 14.1, 11.7, 8.2)]), 30, 40), expected)


@pytest.mark.parametrize("values", [[], [1, 2, 3], [1, float("nan")], [1, float("inf")], [1, 1e300], ["a", "b"], None])
def test_what_is_no_polygon_is_refused(values: object) -> None:
    with pytest.raises((ValueError, TypeError)):
        corners(values)
