"""Tables of the findings that runs have beyond their scores."""

from __future__ import annotations

from collections.abc import Sequence

from fastfcn_pl.engine.diagnostics_report import plain, score_title
from fastfcn_pl.evaluation.diagnostics.fine_grained import fine_grained
from fastfcn_pl.tools.report.groups import Group, Spread
from fastfcn_pl.tools.report.runs import Run
from fastfcn_pl.tools.report.tables import Cell, Table, percent_cell

_WORST_PERCENT = 10
"""Of the images, in the fine-grained scores of runs that were scored without that diagnostic."""

_Cases = dict[str, float | None]


def diagnostic_tables(groups: Sequence[Group]) -> list[Table]:
    """Return a table for each score of a diagnostic, with a row for each group that has finished runs."""
    scores = [(group.name, [_scores(run) for run in group.finished]) for group in groups]
    cases: dict[str, dict[str, None]] = {}
    for of_run in (of_run for _, runs in scores for of_run in runs):
        for title, values in of_run.items():
            cases.setdefault(title, {}).update(dict.fromkeys(values))
    return [_table(title, list(names), scores) for title, names in cases.items()]


def _table(title: str, names: Sequence[str], scores: Sequence[tuple[str, list[dict[str, _Cases]]]]) -> Table:
    rows = []
    for group, runs in scores:
        spreads = [Spread.of(of_run.get(title, {}).get(name) for of_run in runs) for name in names]
        if any(spreads):
            rows.append([Cell(group), *map(percent_cell, spreads)])
    if len(rows) > 1 and all(row[1:] == rows[0][1:] for row in rows):  # a property of the data alone
        rows = [[Cell("all"), *rows[0][1:]]]
    return Table([title, *names], [False, *[True] * len(names)], rows, ["finished"] * len(rows))


def _scores(run: Run) -> dict[str, _Cases]:
    """Return the values of a run by score and case; the fine-grained ones come from its images if it has no others."""
    found = (run.results or {}).get("diagnostics", {})
    if run.counts is not None and "fine_grained" not in found:
        found = {
            **found,
            **plain({"fine_grained": fine_grained(run.counts.counts, _WORST_PERCENT)._replace(classes={})}, ()),
        }
    return {score_title(name, score): cases for name, part in found.items() for score, cases in part["scores"].items()}
