"""Table of a sweep's jobs: `sweep.md` and `sweep.csv` in its folder."""

from __future__ import annotations

import json
import os
import signal
import sys
import textwrap
import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from fastfcn_pl.core.atomic_io import atomic_write
from fastfcn_pl.core.redaction import hide, without_secrets
from fastfcn_pl.core.tables import markdown_table, print_table, write_csv
from fastfcn_pl.core.types import UserError
from fastfcn_pl.engine import hydra_files
from fastfcn_pl.engine.folder_claim import Claim

ERROR = "error.txt"
"""File in a job's folder with the error that ended the job."""
_RECORD, _REFUSED = ".hydra/sweep_job.json", ".hydra/sweep_refused.json"
_CLOCK_SKEW = 60.0
"""Seconds by which the clocks of a cluster's machines may differ."""
_HEADING_WIDTH = 80
_current: Sweep | None = None
"""Sweep of this process."""


class Sweep(Callback):
    """Hydra callback that remembers folder and start of a sweep, and writes its table.

    A job writes the file `results` to its folder. `columns` are the entries of that file by which jobs are compared; a
    sweeper optimises the first one.
    """

    def __init__(self, *, results: str, columns: Sequence[str]) -> None:
        self.results, self.columns = results, tuple(columns)

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        global _current
        hydra_files.protect_sweep()
        self.folder, self.since = Path(config.hydra.sweep.dir), time.time()
        try:
            self.claim = Claim(self.folder)
        except UserError as error:  # Hydra would only warn and continue
            print(f"error: {error}", file=sys.stderr)
            sys.exit(1)
        _current = self

    def jobs(self) -> list[dict[str, Any]]:
        """Return the newest record of each job since the sweep began, with the overrides that not all of them share."""
        records = [path for name in (_RECORD, _REFUSED) for path in self.folder.rglob(name)]
        recent = [path for path in records if path.stat().st_mtime >= self.since - _CLOCK_SKEW]
        newest_last = (json.loads(path.read_text()) for path in sorted(recent, key=lambda path: path.stat().st_mtime))
        newest = {job["job"]: job for job in newest_last}
        jobs = [newest[number] for number in sorted(newest)]
        shared = set.intersection(*(set(job["overrides"]) for job in jobs)) if len(jobs) > 1 else set()
        for job in jobs:
            job["overrides"] = " ".join(override for override in job["overrides"] if override not in shared)
            job["folder"] = os.path.relpath(job["folder"], self.folder)
        return jobs

    def write(self, jobs: list[dict[str, Any]]) -> None:
        """Write and print the table."""
        columns = ("job", "overrides", *self.columns, "time", "folder", "status")
        write_csv(self.folder / "sweep.csv", columns, ([job[name] for name in columns] for job in jobs))
        header, rows = self.format_rows(jobs)
        with atomic_write(self.folder / "sweep.md") as hidden:
            hidden.write_text(f"{markdown_table(header, rows)}\n")
        print_table(header, rows, f"Sweep in {os.path.relpath(self.folder)}")

    def format_rows(self, jobs: list[dict[str, Any]]) -> tuple[Sequence[str], list[list[str]]]:
        """Return the header and the rows of the table as text."""
        header = ("job", "overrides", *self.columns, "time", "folder", "status")
        return header, [[_cell(job, name) for name in header] for job in jobs]


def print_heading(number: int, overrides: Sequence[str]) -> None:
    """Print a line above the output of a job that starts now, with the overrides that distinguish it."""
    own = [override for override in overrides if override not in sys.argv] or overrides
    text = textwrap.shorten(" ".join(without_secrets(own)), _HEADING_WIDTH - 16, placeholder=" ...")
    print(f"\n{f'=== job {number}: {text} ':=<{_HEADING_WIDTH}}", flush=True)


def record(folder: Path, number: int, overrides: Sequence[str], exit_code: int, seconds: float) -> float | None:
    """Record how a job ended; return the value that a sweeper optimises, or None."""
    error = folder / ERROR
    cause = error.read_text().strip() if error.is_file() else _describe_exit(exit_code)
    status = "done" if exit_code == 0 else f"failed: {cause}"
    return _write(folder / _RECORD, folder, number, overrides, status, round(seconds, 1))


def keep(folder: Path, number: int, overrides: Sequence[str]) -> float | None:
    """Record a job that an earlier start of the sweep has finished, with its time; return as `record` does."""
    path = folder / _RECORD
    seconds = json.loads(path.read_text())["time"] if path.is_file() else None
    return _write(path, folder, number, overrides, "done", seconds)


def refuse(folder: Path, number: int, overrides: Sequence[str], cause: str) -> None:
    """Record that a job was not run, without replacing the record of the job that owns its folder."""
    _write(folder / _REFUSED, folder, number, overrides, f"failed: {cause}", None)


def _write(
    path: Path, folder: Path, number: int, overrides: Sequence[str], status: str, seconds: float | None
) -> float | None:
    options = HydraConfig.get().callbacks["sweep"]
    results_file = folder / options.results
    results = json.loads(results_file.read_text()) if status == "done" and results_file.is_file() else {}
    job: dict[str, Any] = {
        "job": number,
        "overrides": without_secrets(overrides),
        **{name: results.get(name) for name in options.columns},
        "time": seconds,
        "folder": str(folder),
        "status": hide(status),
    }
    with atomic_write(path) as hidden:
        hidden.write_text(json.dumps(job))
    return job[options.columns[0]]


def _describe_exit(exit_code: int) -> str:
    number = -exit_code if exit_code < 0 else exit_code - 128
    return f"stopped by {signal.Signals(number).name}" if number in set(signal.Signals) else f"exit code {exit_code}"


def report() -> bool:
    """Write the table of this process's sweep, if it ran one, and release its folder. Return whether a job failed."""
    if _current is None:
        return False
    try:
        jobs = _current.jobs()
        if jobs:
            _current.write(jobs)
        return any(job["status"] != "done" for job in jobs)
    finally:
        _current.claim.end()


def _cell(job: dict[str, Any], name: str) -> str:
    value = job[name]
    if value is None:
        return "-"
    if name == "time":
        return str(timedelta(seconds=round(value)))
    if name == "mIoU":
        return f"{100 * value:.2f}"
    return str(round(value, 4) if isinstance(value, float) else value)
