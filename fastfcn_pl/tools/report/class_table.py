"""Table of the IoU of each class."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from fastfcn_pl.evaluation.formatting import percent
from fastfcn_pl.tools.report.groups import Group, Spread
from fastfcn_pl.tools.report.runs import Run
from fastfcn_pl.tools.report.tables import Cell, Column, Table, table_of

MAX_CLASS_COLUMNS = 12
"""Groups for which the scores of the classes are shown."""


def class_table(groups: Sequence[Group], shown_classes: Mapping[str, str]) -> Table | None:
    """Return the mean IoU of each class for the best groups, those of `shown_classes` marked; None without any IoU."""
    shown = [group for group in groups if any(run.iou for run in group.counted)][:MAX_CLASS_COLUMNS]
    if not shown:
        return None
    classes = list(dict.fromkeys(name for group in shown for run in group.counted for name in run.iou))
    shares: dict[str, float | None] = {}
    for run in (run for group in shown for run in group.finished):
        shares = {**((run.results or {}).get("share") or {}), **shares}
    columns = [Column("class", [Cell(name) for name in classes], numeric=False)]
    if shares:
        columns.append(Column("pixel share", [Cell(percent(shares.get(name)), shares.get(name)) for name in classes]))
    rows = {name: [group.spread(_of_class(name)) for group in shown] for name in classes}
    for i, group in enumerate(shown):
        cells = [_heat(rows[name], i, shown_classes.get(name) == group.name) for name in classes]
        columns.append(Column(group.name, cells))
    left_out = len(groups) - len(shown)
    notes = [f"The best {len(shown)}; {left_out} more are left out."] * bool(left_out)
    return table_of(columns, ["finished"] * len(classes), notes)


def _of_class(name: str) -> Callable[[Run], float | None]:
    return lambda run: run.iou.get(name)


def _heat(spreads: Sequence[Spread | None], index: int, is_shown: bool) -> Cell:
    """Return the cell of one group; a `difference` of 10 points to the first group has the full colour."""
    spread, first = spreads[index], spreads[0]
    if spread is None:
        return Cell("-")
    means = [s.mean for s in spreads if s is not None]
    best = is_shown and spread.mean == max(means)
    difference = None if first is None else max(-1.0, min(1.0, (spread.mean - first.mean) / 0.1))
    return Cell(percent(spread.mean), spread.mean, best, spread.mean, difference)
