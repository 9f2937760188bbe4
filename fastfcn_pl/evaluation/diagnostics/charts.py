"""Charts of diagnostics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_BLUE, _VERMILION, _GREY = "#0072B2", "#D55E00", "#909090"  # Okabe and Ito
_INCHES = (6.0, 4.4)


def bars(values: Mapping[str, float], shares: Mapping[str, float], label: str, titles: tuple[str, str]) -> Any:
    """Return a figure of fractions by case, above the share of the pixels that each case has."""
    figure, upper, lower = _two_axes(titles)
    for axis, heights, color in ((upper, values, _BLUE), (lower, shares, _GREY)):
        drawn = axis.bar(list(heights), [100 * height for height in heights.values()], color=color)
        axis.bar_label(drawn, fmt=lambda x: "" if x != x else f"{x:.1f}", fontsize=8)
        axis.margins(y=0.15)
    lower.set_xlabel(label)
    return figure


def reliability(bins: Mapping[str, Mapping[str, float]], title: str) -> Any:
    """Return a reliability diagram of the `accuracy`, `confidence` and `share` of bins of equal width."""
    figure, upper, lower = _two_axes(("accuracy, %", "pixels, %"))
    width = 100 / len(bins["share"])
    left = [width * i for i in range(len(bins["share"]))]
    percent = {name: [100 * x for x in values.values()] for name, values in bins.items()}
    upper.plot([0, 100], [0, 100], color=_GREY, linestyle="--", linewidth=1, label="perfect calibration")
    upper.bar(left, percent["accuracy"], width, align="edge", color=_BLUE, edgecolor="white", label="accuracy of a bin")
    upper.plot(
        percent["confidence"], percent["accuracy"], "o", color=_VERMILION, markersize=4, label="its mean confidence"
    )
    upper.set(ylim=(0, 100), title=title)
    upper.legend(frameon=False, fontsize=8)
    lower.bar(left, percent["share"], width, align="edge", color=_GREY, edgecolor="white")
    lower.set(xlabel="confidence, %", xlim=(0, 100))
    return figure


def _two_axes(labels: tuple[str, str]) -> tuple[Any, Any, Any]:
    from matplotlib.figure import Figure  # pyplot would keep the figure alive and pick a GUI

    figure = Figure(figsize=_INCHES, layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    for axis, label in zip((upper, lower), labels, strict=True):
        axis.set_ylabel(label, fontsize=9)
        axis.spines[["top", "right"]].set_visible(False)
    return figure, upper, lower
