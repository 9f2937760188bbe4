"""SVG charts of runs: curves, and scores against cost."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np

from fastfcn_pl.evaluation.formatting import significant
from fastfcn_pl.evaluation.point_labels import NamedPoint, label_points

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")  # Okabe and Ito
_LINES = ("-", "--", ":")
MAX_STYLED = len(COLORS) * 2
"""Groups with a colour and a line style of their own; further groups are grey."""
_GREY = "#909090"
_INK = "#010203"  # placeholder for the page's text colour
_INK_KEYS = (
    *("text.color", "grid.color", "xtick.color", "ytick.color"),
    *("axes.edgecolor", "axes.labelcolor", "axes.titlecolor"),
)
_STYLE: dict[Any, Any] = {
    "svg.hashsalt": "fastfcn_pl",
    "svg.fonttype": "none",
    "text.parse_math": False,  # names may hold a $
    "font.size": 9,
    "font.family": "sans-serif",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.alpha": 0.18,
    "legend.frameon": False,
    **dict.fromkeys(_INK_KEYS, _INK),
}
_MAX_BINS, _MAX_MARKERS = 100, 12


@dataclass(frozen=True)
class Point:
    """A group in a chart of score (a fraction) against cost, with the interval of its score if that is known."""

    name: str
    cost: float
    score: float
    interval: tuple[float, float] | None
    finished: bool


@dataclass(frozen=True)
class Curve:
    """Pairs of step and value for each run of a group."""

    name: str
    runs: Sequence[Sequence[tuple[int, float]]]


def for_html(svg: str) -> str:
    """Return `svg` for embedding in HTML: in the page's text colour, without ids that several charts would repeat."""
    svg = svg[svg.index("<svg") :].replace(_INK, "currentColor")
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    return re.sub(r' id="[a-zA-Z]\w*_\d+"', "", svg)


def for_file(svg: str) -> str:
    """Return `svg` as a file of its own, dark on white."""
    white = '<rect width="100%" height="100%" fill="#ffffff"/>'
    return re.sub(r"(<svg[^>]*>)", rf"\1{white}", svg.replace(_INK, "#222222"), count=1)


def style(index: int) -> tuple[str, str]:
    """Return colour and line style of the group at `index`, which are the same in all charts of a page."""
    if index >= MAX_STYLED:
        return _GREY, "-"
    return COLORS[index % len(COLORS)], _LINES[index // len(COLORS)]


def pareto(points: Sequence[Point | None]) -> list[Point]:
    """Return the Pareto front of the finished points, cheapest first."""
    front: list[Point] = []
    for point in sorted((p for p in points if p and p.finished), key=lambda p: (p.cost, -p.score)):
        if not front or point.score > front[-1].score:
            front.append(point)
    return front


def scatter(points: Sequence[Point | None], label: str) -> tuple[str, int]:
    """Draw mIoU against cost and the Pareto front; return the SVG and the number of points without a label.

    `points` has one item per group, best first, and None for groups that are not drawn. A label that would cover
    something is left out; the tooltip still shows it.
    """
    with _figure((4.5, 3.5)) as figure:
        axis = figure.add_axes((0.13, 0.14, 0.84, 0.77))
        axis.set_title(f"mIoU against {label}", fontsize=10, loc="left")
        front = pareto(points)
        axis.step(
            [p.cost for p in front], [100 * p.score for p in front], where="post", color=_INK, alpha=0.45, linewidth=1
        )
        drawn = {i: p for i, p in enumerate(points) if p is not None}
        for i, p in drawn.items():
            color, fill = style(i)[0], "full" if p.finished else "none"
            if p.interval is not None:
                axis.vlines(p.cost, 100 * p.interval[0], 100 * p.interval[1], color=color, linewidth=1)
            axis.plot(p.cost, 100 * p.score, "o", color=color, fillstyle=fill, markersize=5, gid=f"point-{i}")
        axis.set(xlabel=label, ylabel="mIoU, %")
        axis.margins(0.16, 0.12)
        axis.set_xlim(*axis.get_xlim())  # fixed from here on, since labels are placed within the limits
        axis.set_ylim(*axis.get_ylim())
        places = {id(p): place for place, p in enumerate(front)}
        order = sorted(drawn, key=lambda i: places.get(id(drawn[i]), len(front)))
        named = [NamedPoint(drawn[i].name, drawn[i].cost, 100 * drawn[i].score, style(i)[0]) for i in order]
        unlabelled = label_points(axis, named, _INK, steps=len(front))
        tooltips = {
            f"point-{i}": f"{p.name}: {100 * p.score:.2f} %, {label} {significant(p.cost, 4)}" for i, p in drawn.items()
        }
        return _svg(figure, tooltips), unlabelled


def curves(groups: Sequence[Curve], title: str, percent: bool = False) -> str:
    """Draw the mean of each group's runs by step, with a band of one standard deviation if it has several runs.

    Long runs are averaged over at most a hundred bins of steps.
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
            linewidth = 0.6 if i >= MAX_STYLED else 1.4
            marker = "o" if len(steps) <= _MAX_MARKERS else None
            axis.plot(
                steps, mean, line, color=color, linewidth=linewidth, marker=marker, markersize=3, gid=f"curve-{i}"
            )
            if len(values) > 1:
                std = factor * np.nanstd(values, 0, ddof=1)
                axis.fill_between(steps, mean - std, mean + std, color=color, alpha=0.18, linewidth=0)
        axis.set_title(title, fontsize=10, loc="left")
        axis.set_xlabel("step")
        return _svg(figure, {f"curve-{i}": group.name for i, group in enumerate(groups)})


def binned(runs: Sequence[Sequence[tuple[int, float]]]) -> tuple[np.ndarray, np.ndarray]:
    """Return common steps `(N,)` of the runs, and values `(runs, N)`.

    If all runs logged at the same steps, at most a hundred, these are kept. Otherwise values are means over at most a
    hundred bins. The range ends where the shortest run ends, so that means are over all runs.
    """
    if not runs:
        return np.empty(0), np.empty((0, 0))
    steps = [np.array([step for step, _ in run]) for run in runs]
    values = [np.array([value for _, value in run]) for run in runs]
    end = min(int(s[-1]) for s in steps)
    same = all(np.array_equal(s[s <= end], steps[0][steps[0] <= end]) for s in steps)
    if same and (steps[0] <= end).sum() <= _MAX_BINS:
        return steps[0][steps[0] <= end], np.stack([v[s <= end] for s, v in zip(steps, values, strict=True)])
    count = min(_MAX_BINS, *(len(s) for s in steps))
    edges = np.linspace(0, end + 1, count + 1)
    table = np.full((len(runs), count), np.nan)
    for row, s, v in zip(table, steps, values, strict=True):
        bins = np.digitize(s[s <= end], edges) - 1
        sizes = np.bincount(bins, minlength=count)
        row[sizes > 0] = (np.bincount(bins, v[s <= end], count)[:count] / np.maximum(sizes, 1))[sizes > 0]
    complete = ~np.isnan(table).any(0)
    return ((edges[:-1] + edges[1:]) / 2)[complete], table[:, complete]


@contextmanager
def _figure(size: tuple[float, float]) -> Iterator[Any]:
    """Yield a figure in the page's style, without pyplot, which would keep it and choose a GUI backend."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE):
        yield Figure(figsize=size)


def _svg(figure: Any, tooltips: dict[str, str]) -> str:
    """Return the figure as SVG, with `tooltips` for its elements by their ids."""
    file = io.StringIO()
    figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = file.getvalue()
    for element_id, tooltip in tooltips.items():
        text = text.replace(f'<g id="{element_id}">', f"<g><title>{escape(tooltip)}</title>", 1)
    return text
