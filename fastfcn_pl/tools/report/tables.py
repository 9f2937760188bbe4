"""Tables of runs, which HTML and Markdown pages share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from fastfcn_pl.engine.hydra_job import override_key
from fastfcn_pl.evaluation.formatting import averaged_classes, percent
from fastfcn_pl.tools.benchmark.comparison import COST_COLUMNS
from fastfcn_pl.tools.report.groups import Group, Spread
from fastfcn_pl.tools.report.runs import Run
from fastfcn_pl.tools.report.settings import equal_cost_notes

_SCORES = {
    "mIoU": "mIoU",
    "pixel acc.": "pixel_accuracy",
    "mean acc.": "mean_accuracy",
    "60 classes": "mIoU_60_classes",
}
_COSTS = ("parameters", "gmacs", "latency_ms", "peak_mib")
_MAX_FIRST = 2
"""Settings that stand before the scores; further ones follow."""
_EFFORT = ("steps", "epochs", "world_size")
_PUBLISHED = {
    "mIoU": "mIoU, published",
    "mIoU_60_classes": "60 classes, published",
    "pixel_accuracy": "pixel acc., published",
    "fps": "FPS, published",
    "gmacs": "GMACs, published",
}


@dataclass(frozen=True)
class Cell:
    """Cell of a table. HTML sorts by `value`, and colours by `heat` (0 to 1) or `difference` (-1 to 1)."""

    text: str
    value: float | None = None
    best: bool = False
    heat: float | None = None
    difference: float | None = None


@dataclass
class Table:
    """Header, rows and notes. `numeric` marks columns of numbers; `kinds` has the state of each row."""

    header: list[str]
    numeric: list[bool]
    rows: list[list[Cell]]
    kinds: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def compared(self) -> bool:
        """True if several columns are coloured, so that they can be compared with the first one."""
        return sum(cell.heat is not None for cell in self.rows[0]) > 1 if self.rows else False


@dataclass
class Column:
    """Column of a table."""

    title: str
    cells: list[Cell]
    numeric: bool = True


def result_table(
    groups: Sequence[Group], keys: Sequence[str], unmatched: Sequence[dict[str, Any]], best_is_shown: bool = False
) -> Table:
    """Return a table with a row for each group, and one for each `unmatched` published result."""
    columns = _name_columns(groups, keys, unmatched)
    settings, columns = columns[_MAX_FIRST:], columns[:_MAX_FIRST]
    if any(len(group.counted) > 1 for group in groups):
        columns.append(Column("n", [Cell(str(len(group.counted)), len(group.counted)) for group in groups]))
    for title, key in _SCORES.items():
        spreads = [_score(group, key) for group in groups]
        if any(spreads) or (title == "mIoU" and not groups):
            cells = [percent_cell(s, best_is_shown and title == "mIoU" and i == 0) for i, s in enumerate(spreads)]
            columns.append(Column(title, cells))
    columns += settings  # so many that the scores would be out of sight
    for key in _COSTS:
        title, unit, digits = COST_COLUMNS[key]
        values = [group.best.cost.get(key) for group in groups]
        if any(value is not None for value in values):
            columns.append(Column(title, [_number(value, unit, digits) for value in values]))
    equal_costs = [(group.best.results or {}).get("equal_cost") for group in groups]
    if any(equal_costs):
        columns.append(Column("equal cost", [Cell(text or "-") for text in equal_costs], numeric=False))
    notes = []
    for key in _EFFORT:
        values = [(group.best.results or {}).get(key) for group in groups]
        distinct = {value for value in values if value is not None}
        title = key.replace("_", " ")
        if len(distinct) > 1:
            columns.append(Column(title, [_number(value, 1, 0) for value in values]))
        elif distinct:
            notes.append(f"{title} {distinct.pop()}")
    seconds = [group.spread(lambda run: run.seconds) for group in groups]
    if any(seconds):
        columns.append(Column("min", [_number(spread.mean if spread else None, 60, 1) for spread in seconds]))
    if any(group.kind != "finished" or len(group.finished) < len(group.runs) for group in groups):
        columns.append(Column("state", [Cell(_state(group)) for group in groups], numeric=False))
    for column in columns:
        column.cells += [Cell("-") for _ in range(len(groups) + len(unmatched) - len(column.cells))]
    columns += _published_columns([*(group.published for group in groups), *([row] for row in unmatched)])
    kinds = [group.kind for group in groups] + ["missing"] * len(unmatched)
    return table_of(columns, kinds, _notes(groups, notes))


def _name_columns(groups: Sequence[Group], keys: Sequence[str], unmatched: Sequence[dict[str, Any]]) -> list[Column]:
    """Return the columns that name the rows: one for each distinguishing setting, or one with the names of runs."""
    if not keys:
        names = [group.name for group in groups] + [row.get("name") or row.get("run") or "-" for row in unmatched]
        return [Column("run", [Cell(name) for name in names], numeric=False)]
    columns = [Column(key, [Cell(group.settings[key]) for group in groups], numeric=False) for key in keys]
    for row in unmatched:
        settings = {override_key(o): o.partition("=")[2] for o in str(row.get("run") or "").split()}
        others = [f"{key}={value}" for key, value in settings.items() if key not in keys]
        texts = [settings.get(key, "-") for key in keys]
        if others or row.get("name"):
            texts[0] = row.get("name") or " ".join([*([texts[0]] if texts[0] != "-" else []), *others])
        for column, text in zip(columns, texts, strict=True):
            column.cells.append(Cell(text))
    return columns


def _score(group: Group, key: str) -> Spread | None:
    return group.score if key == "mIoU" else Spread.of((run.results or {}).get(key) for run in group.counted)


def percent_cell(spread: Spread | None, best: bool = False) -> Cell:
    if spread is None:
        return Cell("-")
    std = "" if spread.std is None else f" ± {percent(spread.std)}"
    return Cell(percent(spread.mean) + std, spread.mean, best)


def _number(value: float | None, unit: float, digits: int) -> Cell:
    return Cell("-") if value is None else Cell(f"{value / unit:.{digits}f}", value)


def _duration(seconds: float | None) -> Cell:
    return Cell("-" if seconds is None else str(timedelta(seconds=round(seconds))), seconds)


def _state(group: Group) -> str:
    if len(group.runs) == 1:
        return group.runs[0].state.text
    states = [run.state.kind for run in group.runs]
    counts = {kind: states.count(kind) for kind in ("finished", "running", "silent", "failed")}
    return ", ".join(f"{n} {kind}" for kind, n in counts.items() if n)


def _published_columns(rows_of_groups: Sequence[Sequence[dict[str, Any]]]) -> list[Column]:
    columns = []
    for key, title in _PUBLISHED.items():
        values_of_groups = [[row[key] for row in rows if row.get(key) is not None] for rows in rows_of_groups]
        spec = ".2f" if key in _SCORES.values() else "g"
        if any(values_of_groups):
            cells = [
                Cell(" / ".join(f"{value:{spec}}" for value in values) or "-", values[0] if values else None)
                for values in values_of_groups
            ]
            columns.append(Column(title, cells))
    return columns


def _notes(groups: Sequence[Group], common: list[str]) -> list[str]:
    """Return the sentences below a table; `common` has the values that all runs share."""
    notes = []
    if common:
        notes.append(f"{'All runs: ' if len(groups) > 1 else ''}{', '.join(common)}.")
    if any(len(group.counted) > 1 for group in groups):
        notes.append("Scores are means ± sample standard deviations over n runs that differ only in their seed.")
    costs = [group.best.cost for group in groups]
    methods = list(dict.fromkeys(cost["measured"] for cost in costs if cost.get("gmacs") is not None))
    if methods:
        notes.append(f"Cost was measured {'; or '.join(methods)}. Minutes are training time, including validation.")
    for group in groups:
        counts = {averaged_classes(run.results) for run in group.finished if run.results} - {""}
        if counts:
            notes.append(f"{group.name}{' or'.join(sorted(counts))}; means leave out classes without pixels.")
    notes += equal_cost_notes(group.best.config for group in groups)
    if any(group.kind != "finished" and group.score for group in groups):
        notes.append("The mIoU of an unfinished run is its best so far, and is not ranked.")
    return notes


def run_table(groups: Sequence[Group]) -> Table | None:
    """Return a table of the runs; None if each group is one finished run."""
    runs = [(group, run) for group in groups for run in group.runs]
    if len(runs) == len(groups) and all(run.state.kind == "finished" for _, run in runs):
        return None
    columns = [
        Column("run", [Cell(group.name) for group, _ in runs], numeric=False),
        Column("seed", [_number(run.seed, 1, 0) for _, run in runs]),
        Column("mIoU", [Cell(percent(run.score), run.score) for _, run in runs]),
        Column("time", [_duration(run.seconds) for _, run in runs]),
        Column("folder", [Cell(_short_folder(run)) for _, run in runs], numeric=False),
        Column("state", [Cell(run.state.text) for _, run in runs], numeric=False),
    ]
    return table_of(columns, [run.state.kind for _, run in runs], [])


def _short_folder(run: Run) -> str:
    """Return the last component of a run's path, or the last two for a job of a sweep."""
    parts = run.folder.resolve().parts
    return "/".join(parts[-2:]) if parts[-1].isdecimal() else parts[-1]


def table_of(columns: Sequence[Column], kinds: list[str], notes: list[str]) -> Table:
    """Return the table that has these columns."""
    rows = [list(row) for row in zip(*(column.cells for column in columns), strict=True)]
    return Table([column.title for column in columns], [column.numeric for column in columns], rows, kinds, notes)
