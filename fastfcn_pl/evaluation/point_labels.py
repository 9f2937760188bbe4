"""Names beside the points of a chart, placed so that they cover nothing."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

_FONT_SIZE, _MAX_LABELS, _MAX_LENGTH = 8.0, 30, 40


class NamedPoint(NamedTuple):
    """A point in the units of a chart's axes, with its name and its colour."""

    name: str
    x: float
    y: float
    color: str


def label_points(axis: Any, points: Sequence[NamedPoint], ink: str, steps: int = 0) -> int:
    """Label `points`, the first ones first, without covering labels or points; return the number without a label.

    The limits of the axes have to be final. A step line through the first `steps` points is not covered either. A
    label far from its point is joined to it by a line of the point's colour.
    """
    scale = 72 / axis.figure.dpi
    positions = axis.transData.transform([(p.x, p.y) for p in points]) * scale
    (left, bottom), (right, top) = axis.transAxes.transform([(0, 0), (1, 1)]) * scale
    corners = positions[:steps]
    lines = [(x0, y0 - 1, x1, y0 + 1) for (x0, y0), (x1, _) in pairwise(corners)]
    lines += [(x1 - 1, y0, x1 + 1, y1) for (_, y0), (x1, y1) in pairwise(corners)]
    occupied = np.array([*((x - 3.5, y - 3.5, x + 3.5, y + 3.5) for x, y in positions), *lines])
    unlabelled = len(points[_MAX_LABELS:])
    for p, (x, y) in zip(points[:_MAX_LABELS], positions, strict=False):
        text = p.name if len(p.name) <= _MAX_LENGTH else f"{p.name[: _MAX_LENGTH - 1]}…"
        width = _text_width(text)
        for dx, dy in _label_offsets():
            x0 = x + dx - (width if dx < 0 else 0 if dx > 0 else width / 2)
            box = np.array((x0, y + dy - _FONT_SIZE / 2, x0 + width, y + dy + _FONT_SIZE / 2))
            inside = box[0] >= left and box[1] >= bottom and box[2] <= right + 6 and box[3] <= top + 6
            if inside and not ((occupied[:, :2] < box[2:]).all(1) & (occupied[:, 2:] > box[:2]).all(1)).any():
                break
        else:
            unlabelled += 1
            continue
        occupied = np.vstack([occupied, box])
        far = max(abs(dx), abs(dy)) > 14
        axis.annotate(
            text,
            (p.x, p.y),
            ((box[0] - x), dy),
            textcoords="offset points",
            fontsize=_FONT_SIZE,
            color=ink,
            va="center_baseline",
            parse_math=False,
            arrowprops={"arrowstyle": "-", "color": p.color, "linewidth": 0.5, "shrinkB": 3} if far else None,
        )
    return unlabelled


@functools.cache
def _text_width(text: str) -> float:
    """Return the width of a label in points, with a margin for the browser's font."""
    from matplotlib.textpath import TextPath

    return 1.06 * float(TextPath((0, 0), text, size=_FONT_SIZE).vertices[:, 0].max())


def _label_offsets() -> list[tuple[float, float]]:
    """Return the possible offsets of a label from its point, in points, nearest first."""
    near = [(6.0, 0.0), (-6.0, 0.0), (0.0, 9.0), (0.0, -9.0), (5.0, 7.0), (5.0, -7.0), (-5.0, 7.0), (-5.0, -7.0)]
    return near + [(x * r, y * r) for r in (2.2, 3.4) for x, y in near]
