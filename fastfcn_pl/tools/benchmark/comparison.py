"""Tables, CSV files and charts of the cost of one network, or of several for comparison."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

from omegaconf import DictConfig, OmegaConf

from fastfcn_pl.core.atomic_io import atomic_write
from fastfcn_pl.core.tables import markdown_table, print_table, write_csv
from fastfcn_pl.engine.match import NAMES
from fastfcn_pl.engine.sweep import Sweep
from fastfcn_pl.evaluation.formatting import significant
from fastfcn_pl.evaluation.point_labels import NamedPoint, label_points

Measurement = dict[str, Any]
"""Content of a `benchmark.json`."""
COST_COLUMNS = {
    "parameters": ("M params", 1e6, 2),
    "gmacs": ("GMACs", 1, 2),
    "latency_ms": ("ms", 1, 1),
    "peak_mib": ("MiB", 1, 0),
    "training_peak_mib": ("training MiB", 1, 0),
}
"""Heading, unit and decimals of each column."""
_COLORS = {"backbone": "#0072B2", "neck": "#E69F00", "head": "#009E73", "labels": "#999999"}  # Okabe and Ito
SPEEDUP_HEADER = ("", "GMACs", "latency", "published")
"""Header of the rows of `speedups`."""


class Comparison(Sweep):
    """Table and chart of a sweep of benchmarks, with the ratio of each job to the first one.

    If the study has `published` rows with `over`, a second table shows the speed-ups of those pairs.
    """

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        super().on_multirun_start(config, **kwargs)
        rows = config.get("published") or []
        self.published: list[dict[str, Any]] = [OmegaConf.to_container(row) for row in rows]  # type: ignore[misc]

    def write(self, jobs: list[dict[str, Any]]) -> None:
        super().write(jobs)
        done = [job for job in jobs if job["status"] == "done"]
        measurements = [json.loads((self.folder / job["folder"] / self.results).read_text()) for job in done]
        if not measurements:
            return
        with atomic_write(self.folder / "sweep.png") as hidden:
            draw([f"{job['job']}  {short(job['overrides'])}" for job in done], measurements, hidden)
        print(f"measured: {conditions(measurements[0])}")
        rows = speedups(self.published, measurements)
        if rows:
            print_table(SPEEDUP_HEADER, rows, "Cost reduction, times")
            with atomic_write(self.folder / "sweep.md") as hidden:
                text = (self.folder / "sweep.md").read_text()
                hidden.write_text(f"{text}\nCost reduction, times:\n\n{markdown_table(SPEEDUP_HEADER, rows)}\n")

    def format_rows(self, jobs: list[dict[str, Any]]) -> tuple[Sequence[str], list[list[str]]]:
        failed = any(job["status"] != "done" for job in jobs)
        matched = any(job.get("equal_cost") for job in jobs)
        more = [*(["equal cost"] if matched else []), *(["status"] if failed else [])]
        header = ("job", "network", *(title for title, _, _ in COST_COLUMNS.values()), *more)
        rows = []
        for job in jobs:
            cells = [_cell(job, jobs[0], name) for name in COST_COLUMNS]
            cells += [job.get("equal_cost") or "-"] if matched else []
            rows.append([str(job["job"]), short(job["overrides"]), *cells, *([job["status"]] if failed else [])])
        return header, rows


def show_one(measurement: Measurement, folder: Path) -> None:
    """Print the table of one network; write it to `benchmark.csv`, and a chart to `benchmark.png`, in `folder`."""
    costs = {**measurement["parts"], "total": measurement}
    header = ("part", "parameters", "GMACs", "ms")
    rows = [
        [part, f"{cost['parameters']:,}", f"{cost['gmacs']:.2f}", f"{cost['latency_ms']:.1f}"]
        for part, cost in costs.items()
    ]
    print(conditions(measurement))
    print_table(header, rows)
    print(
        f"latency: median {measurement['latency_ms']:.1f} ms, p10 {measurement['latency_p10_ms']:.1f}, "
        f"p90 {measurement['latency_p90_ms']:.1f}, of {measurement['repeats']} runs; "
        f"{measurement['images_per_second']:.2f} images/s"
    )
    memory = [(measurement["peak_mib"], "predicting")]
    if measurement["training"] is not None:
        batch, (height, width) = measurement["training"]["batch"], measurement["training"]["size"]
        memory.append((measurement["training_peak_mib"], f"in a training step of {batch} images of {height}x{width}"))
    if peaks := [f"{mib:.0f} MiB {stage}" for mib, stage in memory if mib is not None]:
        print(f"memory, weights included: {', '.join(peaks)}")
    keys = ("parameters", "gmacs", "latency_ms")
    values = ([part, *(cost[key] for key in keys)] for part, cost in costs.items())
    write_csv(folder / "benchmark.csv", ("part", *keys), values)
    with atomic_write(folder / "benchmark.png") as hidden:
        draw(["network"], [measurement], hidden)
    print(f"in {folder}: benchmark.json, benchmark.csv, benchmark.png")


def conditions(measurement: Measurement) -> str:
    """Return a one-line description of batch, precision, device and versions."""
    threads = f", {measurement['threads']} threads" if measurement["threads"] else ""
    height, width = measurement["size"]
    return (
        f"batch {measurement['batch']} of {height}x{width}, {measurement['precision']}, {measurement['device']}"
        f"{threads}, torch {measurement['versions']['torch']}"
    )


def short(overrides: str) -> str:
    """Return a job's overrides with shortened keys, such as `jpu width=64`, and `(equal GMACs)` for `match`."""
    words, match = [], []
    for override in overrides.split():
        key, _, value = override.partition("=")
        if key == "match.what":
            match = [f"(equal {NAMES.get(value, 'width')})"]
            continue
        words.append(f"{key.rsplit('.', 1)[1]}={value}" if "." in key else value)
    return " ".join([*words, *match])


def speedups(published: Sequence[dict[str, Any]], measurements: Sequence[Measurement]) -> list[list[str]]:
    """Return, for each `published` row with `over`, how many times less it costs than the network `over`.

    `run` and `over` are overrides of jobs. The published speed-up is the ratio of their `fps`.
    """

    def find(run: str) -> Measurement | None:
        return next((m for m in measurements if set(run.split()) <= set(m["overrides"])), None)

    fps = {row["run"]: row["fps"] for row in published if row.get("fps")}
    rows = []
    for row in published:
        network, baseline = find(row["run"]), find(row["over"]) if row.get("over") else None
        if network is None or baseline is None:
            continue
        ratios = [f"{baseline[key] / network[key]:.2f}" for key in ("gmacs", "latency_ms")]
        network_fps, baseline_fps = row.get("fps"), fps.get(row["over"])
        published_ratio = f"{network_fps / baseline_fps:.2f}" if network_fps and baseline_fps else "-"
        rows.append([row.get("name") or f"{short(row['run'])} / {short(row['over'])}", *ratios, published_ratio])
    return rows


def draw(
    names: Sequence[str], measurements: Sequence[Measurement], path: Path | BinaryIO, file_format: str = "png"
) -> None:
    """Draw each network's latency by part. For several networks, also draw latency against GMACs."""
    from matplotlib.figure import Figure

    several = len(measurements) > 1
    figure = Figure(figsize=(11 if several else 6.5, 1.6 + 0.32 * max(len(measurements), 8 if several else 1)))
    figure.set_layout_engine("constrained")
    bars, *others = figure.subplots(1, 2 if several else 1, squeeze=False)[0]
    left = [0.0] * len(measurements)
    for part, color in _COLORS.items():
        width = [m["parts"].get(part, {"latency_ms": 0})["latency_ms"] for m in measurements]
        bars.barh(range(len(measurements)), width, left=left, color=color, label=part)
        left = [a + b for a, b in zip(left, width, strict=True)]
    for row, (end, measurement) in enumerate(zip(left, measurements, strict=True)):
        bars.text(end, row, f" {significant(measurement['latency_ms'])}", va="center", fontsize=8)
    bars.set_yticks(range(len(measurements)), names, fontsize=8, parse_math=False)
    bars.invert_yaxis()
    bars.margins(x=0.12)
    bars.set(xlabel="ms")
    bars.legend(fontsize=8, ncols=4, frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1))
    bars.set_title("latency by part", fontsize=10, loc="left", pad=22)
    for axis in others:
        axis.set_title("latency against GMACs", fontsize=10, loc="left")
    for axis in (bars, *others):
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.3)
        axis.set_axisbelow(True)
    figure.suptitle(conditions(measurements[0]), fontsize=9, parse_math=False)
    for axis in others:
        _scatter(axis, names, measurements)
    figure.savefig(path, format=file_format, dpi=130)


def _scatter(axis: Any, names: Sequence[str], measurements: Sequence[Measurement]) -> None:
    """Draw latency against GMACs, with a colour for each kind of equality, such as `(equal width)`."""
    kinds = [name.partition("(")[2].rstrip(")") for name in names]
    colors = dict(zip(dict.fromkeys(kinds), _COLORS.values(), strict=False))
    firsts = [name.partition(" ")[0] for name in names]
    texts = firsts if len(set(zip(firsts, kinds, strict=True))) == len(names) else names
    points = [
        NamedPoint(text, m["gmacs"], m["latency_ms"], colors[kind])
        for text, kind, m in zip(texts, kinds, measurements, strict=True)
    ]
    for point in points:
        axis.scatter(point.x, point.y, s=18, color=point.color)
    if len(colors) > 1:
        for kind, color in colors.items():
            axis.scatter([], [], s=18, color=color, label=kind)
        axis.legend(fontsize=8, frameon=False, loc="lower right")
    axis.set(xlabel="GMACs of one image", ylabel="ms")
    axis.set(xlim=(0, 1.12 * max(p.x for p in points)), ylim=(0, 1.12 * max(p.y for p in points)))
    axis.figure.draw_without_rendering()  # the layout decides where points are
    axis.figure.set_layout_engine("none")
    label_points(axis, points, "black")


def _cell(job: dict[str, Any], first: dict[str, Any], name: str) -> str:
    value, (_, unit, digits) = job[name], COST_COLUMNS[name]
    if value is None:
        return "-"
    text = f"{value / unit:.{digits}f}"
    return text if job is first or not first[name] else f"{text} ({value / first[name]:.2f}x)"
