"""Sections of a page about the cost of networks, from runs of `benchmark`, which have no score."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

from fastfcn_pl.engine.hydra_job import override_key
from fastfcn_pl.tools.benchmark import comparison
from fastfcn_pl.tools.report.groups import differences, published
from fastfcn_pl.tools.report.runs import Run
from fastfcn_pl.tools.report.settings import equal_cost_notes
from fastfcn_pl.tools.report.tables import Cell, Table
from fastfcn_pl.tools.report.verdicts import Verdicts

_COLUMNS = {
    "M params": ("parameters", 1e6, 2),
    "GMACs": ("gmacs", 1, 2),
    "ms": ("latency_ms", 1, 0),
    "p10": ("latency_p10_ms", 1, 0),
    "p90": ("latency_p90_ms", 1, 0),
    "MiB": ("peak_mib", 1, 0),
    "training MiB": ("training_peak_mib", 1, 0),
}
_WITHOUT_SCORES: dict[str, Any] = {
    "runs": None,
    "classes": None,
    "diagnostics": [],
    "legend": [],
    "grey": 0,
    "samples": [],
    "sampled": [],
    "unsampled": 0,
}
"""Empty values of what the templates show of scored runs."""


def cost_sections(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Return the sections for the templates: one per set of runs that were measured under the same conditions."""
    runs_by_conditions: dict[str, list[Run]] = {}
    for run in runs:
        runs_by_conditions.setdefault(comparison.conditions(_measurement(run)), []).append(run)
    return [_section(i, title, members) for i, (title, members) in enumerate(runs_by_conditions.items())]


def _measurement(run: Run) -> comparison.Measurement:
    assert run.measured is not None, "`find_runs` returns only benchmarks that wrote a measurement"
    return run.measured


def _section(index: int, title: str, runs: Sequence[Run]) -> dict[str, Any]:
    measurements = [_measurement(run) for run in runs]
    names = _network_names(runs)
    speedups = comparison.speedups(published(runs), measurements)
    svg = _chart(names, measurements)
    chart = {"key": "cost", "svg": svg, "caption": "", "file": f"cost_{index}.svg", "label": "latency by part"}
    return {
        **_WITHOUT_SCORES,
        "title": title,
        "table": _table(names, runs),
        "verdicts": Verdicts(),
        "more": _speedup_table(speedups) if speedups else None,
        "charts": [chart],
        "files": {chart["file"]: svg.encode()},
    }


def _network_names(runs: Sequence[Run]) -> list[str]:
    """Return a name for each run, from the overrides in which it differs from the others."""
    differing = differences(runs)
    own = [[o for o in run.overrides if override_key(o) in differing] for run in runs]
    return [comparison.short(" ".join(overrides)) or run.study for overrides, run in zip(own, runs, strict=True)]


def _table(names: Sequence[str], runs: Sequence[Run]) -> Table:
    measurements = [_measurement(run) for run in runs]
    columns = {k: v for k, v in _COLUMNS.items() if any(measurement[v[0]] is not None for measurement in measurements)}
    parts = list(dict.fromkeys(part for measurement in measurements for part in measurement["parts"]))
    rows = []
    for name, measurement in zip(names, measurements, strict=True):
        values = [(measurement[key], unit, digits) for key, unit, digits in columns.values()]
        values += [(measurement["parts"].get(part, {}).get("latency_ms"), 1, 0) for part in parts]
        rows.append([Cell(name), *(Cell("-") if v is None else Cell(f"{v / u:.{d}f}", v) for v, u, d in values)])
    header = ["network", *columns, *(f"{part}, ms" for part in parts)]
    equal_costs = [measurement.get("equal_cost") for measurement in measurements]
    repeats = min(measurement["repeats"] for measurement in measurements)
    notes = [f"Latency is the median of {repeats} runs; `labels` is upsampling and argmax."]
    if "training MiB" in columns and (step := measurements[0]["training"]):
        height, width = step["size"]
        notes.append(f"Memory includes the weights; training is a step of {step['batch']} images of {height}x{width}.")
    numeric = [False] + [True] * (len(header) - 1)
    if any(equal_costs):
        header, numeric = [*header, "equal cost"], [*numeric, False]
        rows = [[*row, Cell(text or "-")] for row, text in zip(rows, equal_costs, strict=True)]
        notes += equal_cost_notes(run.config for run in runs)
    return Table(header, numeric, rows, ["finished"] * len(rows), notes)


def _speedup_table(rows: Sequence[Sequence[str]]) -> Table:
    cells = [[Cell(row[0]), *(Cell(text, None if text == "-" else float(text)) for text in row[1:])] for row in rows]
    header = ["cost reduction, times", *comparison.SPEEDUP_HEADER[1:]]
    return Table(header, [False, True, True, True], cells, ["finished"] * len(cells))


def _chart(names: Sequence[str], measurements: Sequence[comparison.Measurement]) -> str:
    file = io.BytesIO()
    comparison.draw(names, measurements, file, file_format="svg")
    text = file.getvalue().decode()
    return text[text.index("<svg") :]
