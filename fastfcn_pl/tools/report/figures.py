"""Charts of runs, as SVG: curves, and scores against what they cost."""

from __future__ import annotations

import functools
import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from typing import Any

import numpy as np

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")  # Okabe and Ito
_LINES = ("-", "--", ":")
NAMED = len(COLORS) * 2
"""Groups that have a colour and a line of their own; others are grey."""
_GREY = "#909090"
_INK = "#010203"  # what is drawn in the colour of the page's text
_STYLE: dict[Any, Any] = {
    "svg.hashsalt": "fastfcn_pl",
    "svg.fonttype": "none",
    "text.parse_math": False,  # a $ in a name is a $
    "font.size": 9,
    "font.family": "sans-serif",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.alpha": 0.18,
    "legend.frameon": False,
    **dict.fromkeys(
        (
            "text.color",
            "axes.edgecolor",
            "axes.labelcolor",
            "axes.titlecolor",
            "xtick.color",
            "ytick.color",
            "grid.color",
        ),
        _INK,
    ),
}
_BINS, _FEW = 100, 12
_FONT, _NAMES = 8.0, 30


@dataclass(frozen=True)
class Point:
    """A group in a chart of scores (a fraction) against cost; `std` and `front` where it has them."""

    name: str
    cost: float
    score: float
    std: float | None
    finished: bool


@dataclass(frozen=True)
class Curve:
    """Steps and values of each run of a group."""

    name: str
    runs: Sequence[Sequence[tuple[int, float]]]


def inline(svg: str) -> str:
    """Return `svg` for an HTML page, whose text colour it takes; names of elements, which repeat, are left out."""
    svg = svg[svg.index("<svg") :].replace(_INK, "currentColor")
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    return re.sub(r' id="[a-zA-Z]\w*_\d+"', "", svg)


def alone(svg: str) -> str:
    """Return `svg` as a file, dark on white."""
    white = '<rect width="100%" height="100%" fill="#ffffff"/>'
    return re.sub(r"(<svg[^>]*>)", rf"\1{white}", svg.replace(_INK, "#222222"), count=1)


def style(index: int) -> tuple[str, str]:
    """Return the colour and the line of the group at `index`, the same in each chart of a page."""
    if index >= NAMED:
        return _GREY, "-"
    return COLORS[index % len(COLORS)], _LINES[index // len(COLORS)]


def pareto(points: Sequence[Point | None]) -> list[Point]:
    """Return the finished points of which no other one costs as little and scores as high, cheapest first."""
    front: list[Point] = []
    for point in sorted((p for p in points if p and p.finished), key=lambda p: (p.cost, -p.score)):
        if not front or point.score > front[-1].score:
            front.append(point)
    return front


def scatter(points: Sequence[Point | None], label: str) -> tuple[str, int]:
    """Draw mIoU against a cost, and return the SVG and how many points have no name in it.

    `points` are one to a group, best first, None for a group that has no place in it. The Pareto front is a line. A
    name stands where it covers nothing; where there is no such place it shows under the mouse only.
    """
    with _figure((4.5, 3.5)) as figure:
        axis = figure.add_axes((0.13, 0.14, 0.84, 0.83))
        front = pareto(points)
        axis.step(
            [p.cost for p in front], [100 * p.score for p in front], where="post", color=_INK, alpha=0.45, linewidth=1
        )
        drawn = {i: p for i, p in enumerate(points) if p is not None}
        for i, p in drawn.items():
            color, fill = style(i)[0], "full" if p.finished else "none"
            error = 100 * p.std if p.std is not None else None
            axis.errorbar(p.cost, 100 * p.score, yerr=error, color=color, linewidth=1, capsize=2)
            axis.plot(p.cost, 100 * p.score, "o", color=color, fillstyle=fill, markersize=5, gid=f"point-{i}")
        axis.set(xlabel=label, ylabel="mIoU, %")
        axis.margins(0.16, 0.12)
        axis.set_xlim(*axis.get_xlim())  # as it is now: names are placed in it
        axis.set_ylim(*axis.get_ylim())
        first = [*front, *(p for p in drawn.values() if p not in front)]
        unnamed = _name_points(axis, first, {p.name: style(i)[0] for i, p in drawn.items()}, front)
        titles = {f"point-{i}": f"{p.name}: {100 * p.score:.2f} %, {label} {p.cost:.4g}" for i, p in drawn.items()}
        return _svg(figure, titles), unnamed


def _name_points(axis: Any, points: Sequence[Point], colors: dict[str, str], front: Sequence[Point]) -> int:
    """Write the names of `points` beside them, where they cover no name, no point and not the front; count the rest."""
    size, scale = _FONT, 72 / axis.figure.dpi
    places = axis.transData.transform([(p.cost, 100 * p.score) for p in points]) * scale
    (left, bottom), (right, top) = axis.transAxes.transform([(0, 0), (1, 1)]) * scale
    steps = places[: len(front)]  # which come first
    lines = [(x0, y0 - 1, x1, y0 + 1) for (x0, y0), (x1, _) in pairwise(steps)]
    lines += [(x1 - 1, y0, x1 + 1, y1) for (_, y0), (x1, y1) in pairwise(steps)]
    taken = np.array([*((x - 3.5, y - 3.5, x + 3.5, y + 3.5) for x, y in places), *lines])
    unnamed = len(points[_NAMES:])
    for p, (x, y) in zip(points[:_NAMES], places, strict=False):
        text = p.name if len(p.name) <= 40 else f"{p.name[:39]}…"
        width = _width(text)
        for across, up in _ways():
            x0 = x + across - (width if across < 0 else 0 if across > 0 else width / 2)
            box = np.array((x0, y + up - size / 2, x0 + width, y + up + size / 2))
            inside = box[0] >= left and box[1] >= bottom and box[2] <= right + 6 and box[3] <= top + 6
            if inside and not ((taken[:, :2] < box[2:]).all(1) & (taken[:, 2:] > box[:2]).all(1)).any():
                break
        else:
            unnamed += 1
            continue
        taken = np.vstack([taken, box])
        far = max(abs(across), abs(up)) > 14
        axis.annotate(
            text,
            (p.cost, 100 * p.score),
            ((box[0] - x), up),
            textcoords="offset points",
            fontsize=size,
            color=_INK,
            va="center_baseline",
            arrowprops={"arrowstyle": "-", "color": colors[p.name], "linewidth": 0.5, "shrinkB": 3} if far else None,
        )
    return unnamed


@functools.cache
def _width(text: str) -> float:
    """Return how wide a name is, in points, with some room for another font than this one."""
    from matplotlib.textpath import TextPath

    return 1.06 * float(TextPath((0, 0), text, size=_FONT).vertices[:, 0].max())


def _ways() -> list[tuple[float, float]]:
    """Return where a name may stand from its point, in points: near first."""
    near = [(6.0, 0.0), (-6.0, 0.0), (0.0, 9.0), (0.0, -9.0), (5.0, 7.0), (5.0, -7.0), (-5.0, 7.0), (-5.0, -7.0)]
    return near + [(x * r, y * r) for r in (2.2, 3.4) for x, y in near]


def curves(groups: Sequence[Curve], title: str, percent: bool = False) -> str:
    """Draw a value by step, of each group the mean of its runs and, of several, a band of one standard deviation.

    Values are means over bins where a run has more than a hundred.
    """
    with _figure((4.5, 2.8)) as figure:
        axis = figure.add_axes((0.13, 0.17, 0.84, 0.73))
        factor = 100 if percent else 1
        for i, group in reversed(list(enumerate(groups))):
            steps, values = binned([run for run in group.runs if run])
            if not len(steps):
                continue
            color, line = style(i)
            mean = factor * np.nanmean(values, 0)
            thin = 0.6 if i >= NAMED else 1.4
            marker = "o" if len(steps) <= _FEW else None
            axis.plot(steps, mean, line, color=color, linewidth=thin, marker=marker, markersize=3, gid=f"curve-{i}")
            if len(values) > 1:
                std = factor * np.nanstd(values, 0, ddof=1)
                axis.fill_between(steps, mean - std, mean + std, color=color, alpha=0.18, linewidth=0)
        axis.set_title(title, fontsize=10, loc="left")
        axis.set_xlabel("step")
        return _svg(figure, {f"curve-{i}": group.name for i, group in enumerate(groups)})


def binned(runs: Sequence[Sequence[tuple[int, float]]]) -> tuple[np.ndarray, np.ndarray]:
    """Return steps `(N,)` and values `(runs, N)` of what runs logged, on common steps.

    Where they logged at the same few steps these are kept, else means over at most a hundred bins; only steps up to
    which all runs came are in it, so that a mean is one of all.
    """
    if not runs:
        return np.empty(0), np.empty((0, 0))
    steps = [np.array([step for step, _ in run]) for run in runs]
    values = [np.array([value for _, value in run]) for run in runs]
    end = min(int(s[-1]) for s in steps)
    same = all(np.array_equal(s[s <= end], steps[0][steps[0] <= end]) for s in steps)
    if same and (steps[0] <= end).sum() <= _BINS:
        return steps[0][steps[0] <= end], np.stack([v[s <= end] for s, v in zip(steps, values, strict=True)])
    count = min(_BINS, *(len(s) for s in steps))
    edges = np.linspace(0, end + 1, count + 1)
    table = np.full((len(runs), count), np.nan)
    for row, s, v in zip(table, steps, values, strict=True):
        place = np.digitize(s[s <= end], edges) - 1
        number = np.bincount(place, minlength=count)
        row[number > 0] = (np.bincount(place, v[s <= end], count)[:count] / np.maximum(number, 1))[number > 0]
    whole = ~np.isnan(table).any(0)
    return ((edges[:-1] + edges[1:]) / 2)[whole], table[:, whole]


@contextmanager
def _figure(size: tuple[float, float]) -> Iterator[Any]:
    """Yield a figure in the page's style; pyplot would keep it, and choose a window system."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE):
        yield Figure(figsize=size)


def _svg(figure: Any, titles: dict[str, str]) -> str:
    """Return the figure, with `titles` that show where the mouse is over an element, by its name."""
    file = io.StringIO()
    figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = file.getvalue()
    for name, title in titles.items():
        text = text.replace(f'<g id="{name}">', f"<g><title>{escape(title)}</title>", 1)
    return text
