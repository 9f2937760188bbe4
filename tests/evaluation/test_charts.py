"""Charts: names that cover nothing, plain numbers, units, and names in scripts that not every font has."""

from __future__ import annotations

import io
import re
import warnings

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from fastfcn_pl.core.types import DatasetSpec
from fastfcn_pl.evaluation import fonts, visualize
from fastfcn_pl.evaluation.confusion_plot import draw_confusion
from fastfcn_pl.evaluation.fonts import drawable, font_file
from fastfcn_pl.evaluation.formatting import significant
from fastfcn_pl.tools.benchmark import comparison

HAN = "\u9053\u8def"
CYRILLIC = "\u0434\u043e\u0440\u043e\u0433\u0430"


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [
        (1120.4, 3, "1120"),
        (123456.7, 3, "123457"),
        (12.34, 3, "12.3"),
        (0.01234, 2, "0.012"),
        (5, 4, "5.000"),
        (0, 3, "0.00"),
        (-45.67, 3, "-45.7"),
    ],
)
def test_numbers_have_no_powers_of_ten(value: float, digits: int, text: str) -> None:
    assert significant(value, digits) == text


def _measurement(name: str, gmacs: float, milliseconds: float) -> comparison.Measurement:
    parts = {"backbone": {"latency_ms": milliseconds}}
    machine = {"threads": 2, "device": "CPU", "precision": "32-true", "versions": {"torch": "2"}}
    return {"gmacs": gmacs, "latency_ms": milliseconds, "parts": parts, "size": [64, 64], "batch": 1, **machine}


@pytest.mark.slow
def test_networks_are_named_in_the_chart_of_costs() -> None:
    names = ["jpu (equal width)", "fpn (equal width)", "jpu (equal GMACs)", "none (equal width)"]
    costs = [(5.0, 1120.4), (5.01, 1121.0), (5.0, 1119.0), (2.0, 80.26)]
    file = io.BytesIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(__import__("matplotlib").rcParams, "svg.fonttype", "none")
        comparison.draw(names, [_measurement(n, *c) for n, c in zip(names, costs, strict=True)], file, "svg")
    texts = re.findall(r"<text[^>]*>([^<]+)</text>", file.getvalue().decode())
    stripped = [text.strip() for text in texts]
    for word in ("1120", "1121", "80.3", "latency by part", "latency against GMACs", "equal width"):
        assert word in stripped
    assert [stripped.count(name) for name in ("jpu", "fpn", "none")] == [2, 1, 1]
    assert "e+" not in "".join(texts)


def test_a_font_with_the_glyphs_is_taken_else_the_other_text(monkeypatch: pytest.MonkeyPatch) -> None:
    assert drawable("road", "7", 12)[0] == "road"
    text, font = drawable(CYRILLIC, "7", 12)
    assert text == CYRILLIC
    assert font_file(CYRILLIC) == font.path  # type: ignore[union-attr]
    monkeypatch.setattr(fonts, "font_file", lambda text: None)
    assert drawable(HAN, "7", 12)[0] == "7"


def test_a_legend_shows_the_id_of_a_class_whose_name_no_font_has(monkeypatch: pytest.MonkeyPatch) -> None:
    def strip(name: str) -> np.ndarray:
        spec = DatasetSpec("two", ("road", name), ((0, 0, 200), (200, 0, 0)))
        return visualize.legend([0, 1], spec, 200)

    assert not np.array_equal(strip(CYRILLIC), strip("1"))
    monkeypatch.setattr(fonts, "font_file", lambda text: None)
    assert np.array_equal(strip(HAN), strip("1"))


@pytest.mark.slow
def test_a_confusion_matrix_has_one_unit_and_every_name(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda self, *_, **__: drawn.append(self))
    monkeypatch.setattr("fastfcn_pl.evaluation.confusion_plot.font_file", lambda t: None if t == HAN else font_file(t))
    draw_confusion(np.array([[90, 10, 0], [1, 1, 2], [0, 0, 0]]), ("$road$", HAN, CYRILLIC), io.BytesIO())
    axis, bar = drawn[0].axes
    assert [label.get_text() for label in axis.get_yticklabels()] == ["$road$", "1", CYRILLIC]
    assert {text.get_text() for text in axis.texts} == {"90", "10", "25", "50"}
    assert bar.get_ylim() == (0, 100)
    assert "%" in bar.get_ylabel()
    assert "%" in axis.get_title(loc="left")
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # matplotlib warns of a glyph that a font does not have
        drawn[0].draw_without_rendering()


def test_an_error_map_has_a_key() -> None:
    spec = DatasetSpec("one", ("sky", "sea"), ((0, 0, 200), (0, 200, 0)))
    labels = np.zeros((30, 200), np.uint8)
    picture = visualize.comparison(np.zeros((30, 200, 3), np.uint8), labels, labels, spec)
    title = picture[: visualize._LINE, 3 * (200 + visualize._GAP) :]
    colors = {tuple(color) for color in title.reshape(-1, 3).tolist()}
    assert {visualize._WRONG, visualize._CORRECT} <= colors
    assert Image.fromarray(picture).size == (4 * 200 + 3 * 6, len(picture))
