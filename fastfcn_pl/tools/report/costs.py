"""The part of a page that is about what networks cost: runs of `benchmark`, which have no score."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

from fastfcn_pl.tools.benchmark import comparison
from fastfcn_pl.tools.report.groups import differences, published
from fastfcn_pl.tools.report.runs import Run, key_of
from fastfcn_pl.tools.report.tables import Cell, Table

_COLUMNS = {
    "M params": ("parameters", 1e6, 2),
    "GMACs": ("gmacs", 1, 2),
    "ms": ("latency_ms", 1, 0),
    "p10": ("latency_p10_ms", 1, 0),
    "p90": ("latency_p90_ms", 1, 0),
    "MiB": ("peak_mib", 1, 0),
    "training MiB": ("training_peak_mib", 1, 0),
}
_NOTHING: dict[str, Any] = {
    "runs": None,
    "classes": None,
    "legend": [],
    "grey": 0,
    "samples": [],
    "sampled": [],
    "unsampled": 0,
}
"""What the templates ask for and a benchmark has not."""


def parts(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Return what the templates show of `runs`: those that were measured alike together, in the order of their jobs."""
    alike: dict[str, list[Run]] = {}
    for run in runs:
        alike.setdefault(comparison.conditions(_measured(run)), []).append(run)
    return [_part(i, title, members) for i, (title, members) in enumerate(alike.items())]


def _measured(run: Run) -> comparison.Measured:
    assert run.measured is not None, "runs of `benchmark` are found by what it wrote"
    return run.measured


def _part(index: int, title: str, runs: Sequence[Run]) -> dict[str, Any]:
    found = [_measured(run) for run in runs]
    names = _names(runs)
    rows = comparison.pairs(published(runs), found)
    svg = _chart(names, found)
    chart = {"key": "cost", "svg": svg, "caption": "", "file": f"cost_{index}.svg", "label": "where the time goes"}
    return {
        **_NOTHING,
        "title": title,
        "table": _table(names, found),
        "more": _pairs(rows) if rows else None,
        "charts": [chart],
        "files": {chart["file"]: svg.encode()},
    }


def _names(runs: Sequence[Run]) -> list[str]:
    """Return what tells each run from the others, by its overrides."""
    differing = differences(runs)
    own = [[o for o in run.overrides if key_of(o) in differing] for run in runs]
    return [comparison.short(" ".join(overrides)) or run.study for overrides, run in zip(own, runs, strict=True)]


def _table(names: Sequence[str], found: Sequence[comparison.Measured]) -> Table:
    columns = {k: v for k, v in _COLUMNS.items() if any(it[v[0]] is not None for it in found)}
    places = list(dict.fromkeys(name for it in found for name in it["parts"]))
    rows = []
    for name, it in zip(names, found, strict=True):
        values = [(it[key], unit, digits) for key, unit, digits in columns.values()]
        values += [(it["parts"].get(place, {}).get("latency_ms"), 1, 0) for place in places]
        rows.append([Cell(name), *(Cell("-") if v is None else Cell(f"{v / u:.{d}f}", v) for v, u, d in values)])
    header = ["network", *columns, *(f"{place}, ms" for place in places)]
    repeats = {it["repeats"] for it in found}
    notes = [f"Latency is the median of {min(repeats)} runs; `labels` is upsampling and argmax."]
    if "training MiB" in columns and (step := found[0]["training"]):
        height, width = step["size"]
        notes.append(
            f"Memory holds the weights, too; training is a step of {step['batch']} images of {height}x{width}."
        )
    return Table(header, [False] + [True] * (len(header) - 1), rows, ["finished"] * len(rows), notes)


def _pairs(rows: Sequence[Sequence[str]]) -> Table:
    """Return how many times less the second of two networks costs, beside the published ratio of frames a second."""
    cells = [[Cell(row[0]), *(Cell(text, None if text == "-" else float(text)) for text in row[1:])] for row in rows]
    header = ["so many times less", *comparison.PAIRS[1:]]
    return Table(header, [False, True, True, True], cells, ["finished"] * len(cells))


def _chart(names: Sequence[str], found: Sequence[comparison.Measured]) -> str:
    file = io.BytesIO()
    comparison.draw(names, found, file, form="svg")
    text = file.getvalue().decode()
    return text[text.index("<svg") :]
