"""Pictures of labels and errors."""

from __future__ import annotations

import numpy as np

from fastfcn_pl.core.types import IGNORE, DatasetSpec
from fastfcn_pl.evaluation.visualize import colorize, comparison, error_map, legend, overlay, stack

SPEC = DatasetSpec("two", ("sky", "road"), ((0, 0, 200), (200, 0, 0)))
LABELS = np.array([[0, 1, IGNORE]], np.uint8)


def test_colorize_paints_the_palette() -> None:
    assert colorize(LABELS, SPEC).tolist() == [[[0, 0, 200], [200, 0, 0], [255, 255, 255]]]


def test_overlay_blends_all_but_ignored_pixels() -> None:
    image = np.full((1, 3, 3), 100, np.uint8)
    assert overlay(image, LABELS, SPEC, opacity=0.5).tolist() == [[[50, 50, 150], [150, 50, 50], [100, 100, 100]]]


def test_error_map_colours_correct_wrong_and_ignored_pixels() -> None:
    colours = error_map(np.array([[0, 0, 0]], np.uint8), LABELS)[0].tolist()
    assert len({tuple(c) for c in colours}) == 3
    assert colours[2] == [255, 255, 255]


def test_comparison_shows_four_panels_and_a_legend_of_the_classes_that_occur() -> None:
    spec = DatasetSpec("four", ("sky", "sea", "road", "car"), ((0, 0, 200), (0, 90, 90), (200, 0, 0), (9, 9, 9)))
    image = np.zeros((40, 200, 3), np.uint8)
    truth, prediction = np.zeros((40, 200), np.uint8), np.full((40, 200), 2, np.uint8)
    truth[:, 50:] = IGNORE
    picture = comparison(image, truth, prediction, spec)
    assert picture.dtype == np.uint8
    assert picture.shape[1] == 4 * 200 + 3 * 6
    strip = legend([0, 2], spec, picture.shape[1])
    assert np.array_equal(picture[-len(strip) :], strip)
    painted = {tuple(colour) for colour in strip.reshape(-1, 3).tolist()}
    assert {spec.palette[0], spec.palette[2]} <= painted
    assert not {spec.palette[1], spec.palette[3]} & painted


def test_small_images_are_enlarged() -> None:
    small = np.zeros((20, 30), np.uint8)
    assert comparison(np.zeros((20, 30, 3), np.uint8), small, small, SPEC).shape[1] == 4 * 210 + 3 * 6


def test_a_narrow_legend_wraps() -> None:
    assert len(legend([0, 1], SPEC, 60)) > len(legend([0, 1], SPEC, 600))
    assert len(legend([], SPEC, 60)) > 0


def test_stack_pads_narrow_pictures_with_white() -> None:
    stacked = stack([np.zeros((2, 4, 3), np.uint8), np.zeros((2, 8, 3), np.uint8)])
    assert stacked.shape[1] == 8
    assert (stacked[0, 4:] == 255).all()
