"""Findings of diagnostics in a run's files and on the terminal."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from fastfcn_pl.core.atomic_io import atomic_write
from fastfcn_pl.core.tables import markdown_table
from fastfcn_pl.evaluation.diagnostics.diagnostic import Diagnostic, Diagnostics, Findings
from fastfcn_pl.evaluation.formatting import percent

_WIDTH = 40
"""Characters of the scores in a line of the terminal's table."""


def plain(findings: Mapping[str, Findings], classes: Sequence[str]) -> dict[str, Any]:
    """Return findings for `results.json`: `scores`, `details` and `classes` of each diagnostic; NaN is None."""
    return {
        name: {
            "scores": {score: _without_nan(cases) for score, cases in of_one.scores.items()},
            "details": {detail: _without_nan(cases) for detail, cases in of_one.details.items()},
            "classes": {
                title: _without_nan(dict(zip(classes, values, strict=True))) for title, values in of_one.classes.items()
            },
        }
        for name, of_one in findings.items()
    }


def _without_nan(values: Mapping[str, float]) -> dict[str, float | None]:
    return {name: None if math.isnan(x) else x for name, x in values.items()}


def table(diagnostics: Mapping[str, Any]) -> Table:
    """Return the scores of `results.json` as a table for a terminal of 80 columns."""
    shown = Table("diagnostic", "scores, %", title="Diagnostics", title_justify="left")
    for title, cases in _scores(diagnostics):
        words = "  ".join(f"{case} {percent(x)}".replace(" ", "\N{NO-BREAK SPACE}") for case, x in cases.items())
        shown.add_row(title, textwrap.fill(words, _WIDTH))
    return shown


def markdown(diagnostics: Mapping[str, Any]) -> str:
    """Return the scores of `results.json` as Markdown, and those of the classes; empty without diagnostics."""
    if not diagnostics:
        return ""
    rows = [
        (title, ", ".join(f"{case} {percent(x)}" for case, x in cases.items())) for title, cases in _scores(diagnostics)
    ]
    columns = {title: values for part in diagnostics.values() for title, values in part["classes"].items()}
    classes: list[str] = list(next(iter(columns.values()), {}))
    by_class = [(name, *(percent(values[name]) for values in columns.values())) for name in classes]
    tables = [markdown_table(["diagnostic", "scores, %"], rows, [False, False])]
    tables += [markdown_table(["class", *columns], by_class)] if by_class else []
    return "".join(f"\n{text}\n" for text in tables)


def _scores(diagnostics: Mapping[str, Any]) -> list[tuple[str, dict[str, float | None]]]:
    return [
        (score_title(name, score), cases)
        for name, part in diagnostics.items()
        for score, cases in part["scores"].items()
    ]


def score_title(name: str, score: str) -> str:
    """Return the title of a score, such as `boundary bands: error by distance`."""
    return f"{name.replace('_', ' ')}: {score}"


def write_charts(diagnostics: Diagnostics, folder: Path) -> list[Path]:
    """Write the charts of the diagnostics that have one to `folder`, and return their paths."""
    paths = []
    for name, diagnostic in diagnostics.items():
        assert isinstance(diagnostic, Diagnostic)
        if (figure := diagnostic.chart(diagnostics.findings[name])) is not None:
            paths.append(folder / f"{name}.png")
            with atomic_write(paths[-1]) as hidden:
                figure.savefig(hidden, format="png", dpi=130)
    return paths
