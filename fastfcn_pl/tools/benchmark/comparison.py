"""Tables, CSV files and charts of what networks cost, one or many beside each other."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

from omegaconf import DictConfig, OmegaConf

from fastfcn_pl.core.atomic_io import atomic_write
from fastfcn_pl.engine.sweep import Sweep, markdown, show

Measured = dict[str, Any]
"""What a `benchmark.json` holds."""
_COLUMNS = {
    "parameters": ("M params", 1e6, 2),
    "gmacs": ("GMACs", 1, 2),
    "latency_ms": ("ms", 1, 1),
    "peak_mib": ("MiB", 1, 0),
    "training_peak_mib": ("training MiB", 1, 0),
}
"""What is above each column, the unit and the digits behind the point."""
_COLORS = {"backbone": "#0072B2", "neck": "#E69F00", "head": "#009E73", "labels": "#999999"}  # Okabe and Ito's
PAIRS = ("", "GMACs", "latency", "published")
"""The header of `pairs`."""


class Comparison(Sweep):
    """The table of a sweep of benchmarks: each job with its ratios to the first, and a chart.

    Where the study has `published` rows with `over`, a second table has the speed-ups of those pairs.
    """

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        super().on_multirun_start(config, **kwargs)
        rows = config.get("published") or []
        self.published: list[dict[str, Any]] = [OmegaConf.to_container(row) for row in rows]  # type: ignore[misc]

    def write(self, jobs: list[dict[str, Any]]) -> None:
        super().write(jobs)
        done = [job for job in jobs if job["status"] == "done"]
        found = [json.loads((self.folder / job["folder"] / self.results).read_text()) for job in done]
        if not found:
            return
        with atomic_write(self.folder / "sweep.png") as hidden:
            draw([f"{job['job']}  {short(job['overrides'])}" for job in done], found, hidden)
        print(f"measured: {conditions(found[0])}")
        rows = pairs(self.published, found)
        if rows:
            show(PAIRS, rows, "So many times less")
            with atomic_write(self.folder / "sweep.md") as hidden:
                text = (self.folder / "sweep.md").read_text()
                hidden.write_text(f"{text}\nSo many times less:\n\n{markdown(PAIRS, rows)}")

    def format_rows(self, jobs: list[dict[str, Any]]) -> tuple[Sequence[str], list[list[str]]]:
        failed = any(job["status"] != "done" for job in jobs)
        header = ("job", "network", *(title for title, _, _ in _COLUMNS.values()), *(["status"] if failed else []))
        rows = []
        for job in jobs:
            cells = [_cell(job, jobs[0], name) for name in _COLUMNS]
            rows.append([str(job["job"]), short(job["overrides"]), *cells, *([job["status"]] if failed else [])])
        return header, rows


def show_one(found: Measured, folder: Path) -> None:
    """Print the table of one network; write it to `benchmark.csv`, and a chart to `benchmark.png`, in `folder`."""
    header = ("part", "parameters", "GMACs", "ms")
    rows = [
        [name, f"{it['parameters']:,}", f"{it['gmacs']:.2f}", f"{it['latency_ms']:.1f}"]
        for name, it in {**found["parts"], "total": found}.items()
    ]
    print(conditions(found))
    show(header, rows)
    print(
        f"latency: median {found['latency_ms']:.1f} ms, p10 {found['latency_p10_ms']:.1f}, "
        f"p90 {found['latency_p90_ms']:.1f}, of {found['repeats']} runs; {found['images_per_second']:.2f} images/s"
    )
    memory = [(found["peak_mib"], "predicting")]
    if found["training"] is not None:
        batch, (height, width) = found["training"]["batch"], found["training"]["size"]
        memory.append((found["training_peak_mib"], f"in a training step of {batch} images of {height}x{width}"))
    if peaks := [f"{mib:.0f} MiB {what}" for mib, what in memory if mib is not None]:
        print(f"memory, weights included: {', '.join(peaks)}")
    with atomic_write(folder / "benchmark.csv") as hidden, hidden.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(("part", "parameters", "gmacs", "latency_ms"))
        table.writerows(
            (name, it["parameters"], it["gmacs"], it["latency_ms"])
            for name, it in {**found["parts"], "total": found}.items()
        )
    with atomic_write(folder / "benchmark.png") as hidden:
        draw(["network"], [found], hidden)
    print(f"in {folder}: benchmark.json, benchmark.csv, benchmark.png")


def conditions(found: Measured) -> str:
    """Return what was measured on what, in one line."""
    threads = f", {found['threads']} threads" if found["threads"] else ""
    height, width = found["size"]
    return (
        f"batch {found['batch']} of {height}x{width}, {found['precision']}, {found['device']}{threads}, "
        f"torch {found['versions']['torch']}"
    )


def short(overrides: str) -> str:
    """Return what a job's overrides say without the long names of their keys: `jpu width=64`."""
    words = []
    for override in overrides.split():
        key, _, value = override.partition("=")
        words.append(f"{key.rsplit('.', 1)[1]}={value}" if "." in key else value)
    return " ".join(words)


def pairs(published: Sequence[dict[str, Any]], found: Sequence[Measured]) -> list[list[str]]:
    """Return a row for each of the `published` ones that are `over` another: how much less it costs than that.

    A row's `run` and `over` are overrides of jobs; its `fps` over the other row's is the published speed-up.
    """

    def job(run: str) -> Measured | None:
        return next((it for it in found if set(run.split()) <= set(it["overrides"])), None)

    speed = {row["run"]: row["fps"] for row in published if row.get("fps")}
    rows = []
    for row in published:
        ours, other = job(row["run"]), job(row["over"]) if row.get("over") else None
        if ours is None or other is None:
            continue
        less = [f"{other[key] / ours[key]:.2f}" for key in ("gmacs", "latency_ms")]
        theirs = row.get("fps"), speed.get(row["over"])
        told = f"{theirs[0] / theirs[1]:.2f}" if theirs[0] and theirs[1] else "-"
        rows.append([row.get("name") or f"{short(row['run'])} / {short(row['over'])}", *less, told])
    return rows


def draw(names: Sequence[str], found: Sequence[Measured], path: Path | BinaryIO, form: str = "png") -> None:
    """Draw where each network's time goes and, of several, latency against GMACs, to a PNG or an SVG."""
    from matplotlib.figure import Figure

    several = len(found) > 1
    figure = Figure(figsize=(11 if several else 6.5, 1.6 + 0.32 * max(len(found), 8 if several else 1)))
    figure.set_layout_engine("constrained")
    bars, *others = figure.subplots(1, 2 if several else 1, squeeze=False)[0]
    left = [0.0] * len(found)
    for part, color in _COLORS.items():
        width = [it["parts"].get(part, {"latency_ms": 0})["latency_ms"] for it in found]
        bars.barh(range(len(found)), width, left=left, color=color, label=part)
        left = [a + b for a, b in zip(left, width, strict=True)]
    for row, (end, it) in enumerate(zip(left, found, strict=True)):
        bars.text(end, row, f" {it['latency_ms']:.3g}", va="center", fontsize=8)
    bars.set_yticks(range(len(found)), names, fontsize=8, parse_math=False)
    bars.invert_yaxis()
    bars.margins(x=0.12)
    bars.set(xlabel="ms")
    bars.legend(fontsize=8, ncols=4, frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1))
    for axis in others:
        axis.scatter([it["gmacs"] for it in found], [it["latency_ms"] for it in found], s=18, color="#0072B2")
        for name, it in zip(names, found, strict=True):
            place = it["gmacs"], it["latency_ms"]
            axis.annotate(
                name.partition(" ")[0], place, (4, 3), textcoords="offset points", fontsize=8, parse_math=False
            )
        axis.set(xlabel="GMACs of one image", ylabel="ms", xlim=(0, None), ylim=(0, None))
        axis.margins(0.1)
    for axis in (bars, *others):
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.3)
        axis.set_axisbelow(True)
    figure.suptitle(conditions(found[0]), fontsize=9, parse_math=False)
    figure.savefig(path, format=form, dpi=130)


def _cell(job: dict[str, Any], first: dict[str, Any], name: str) -> str:
    value, (_, unit, digits) = job[name], _COLUMNS[name]
    if value is None:
        return "-"
    text = f"{value / unit:.{digits}f}"
    return text if job is first or not first[name] else f"{text} ({value / first[name]:.2f}x)"
