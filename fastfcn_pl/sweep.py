"""The jobs of a sweep in one table: `sweep.md` and `sweep.csv` in its folder."""

from __future__ import annotations

import csv
import json
import os
import signal
import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from fastfcn_pl.staging import staged

ERROR = "error.txt"
"""What stopped a job of a sweep, in its folder."""
_RECORD, _REFUSED = ".hydra/sweep_job.json", ".hydra/sweep_refused.json"
_CLOCKS = 60.0
"""Seconds by which the clocks of a cluster's machines may differ."""
_COLUMNS = ("job", "overrides", "mIoU", "world_size", "time", "folder", "status")
_begun: tuple[Path, float] | None = None


class Sweep(Callback):
    """Remembers where this process's sweep began, and when."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        global _begun
        _begun = Path(config.hydra.sweep.dir), time.time()


def record(folder: Path, number: int, overrides: Sequence[str], exit_code: int, seconds: float) -> float | None:
    """Write down how a job ended; return its mIoU, None where it has none."""
    error = folder / ERROR
    cause = error.read_text().strip() if error.is_file() else _ending(exit_code)
    status = "done" if exit_code == 0 else f"failed: {cause}"
    return _write(folder / _RECORD, folder, number, overrides, status, round(seconds, 1))


def keep(folder: Path, number: int, overrides: Sequence[str]) -> float | None:
    """Write down a job that was done when the sweep was started before, with the time that it took then."""
    path = folder / _RECORD
    seconds = json.loads(path.read_text())["time"] if path.is_file() else None
    return _write(path, folder, number, overrides, "done", seconds)


def refuse(folder: Path, number: int, overrides: Sequence[str], cause: str) -> None:
    """Write down that a job was not run since its folder is another one's, whose record stays."""
    _write(folder / _REFUSED, folder, number, overrides, f"failed: {cause}", None)


def _write(
    path: Path, folder: Path, number: int, overrides: Sequence[str], status: str, seconds: float | None
) -> float | None:
    results_file = folder / "results.json"
    results = json.loads(results_file.read_text()) if status == "done" and results_file.is_file() else {}
    job = {
        "job": number,
        "overrides": list(overrides),
        "mIoU": results.get("mIoU"),
        "world_size": results.get("world_size"),
        "time": seconds,
        "folder": str(folder),
        "status": status,
    }
    with staged(path) as hidden:
        hidden.write_text(json.dumps(job))
    return results.get("mIoU")


def _ending(exit_code: int) -> str:
    number = -exit_code if exit_code < 0 else exit_code - 128
    return f"stopped by {signal.Signals(number).name}" if number in set(signal.Signals) else f"exit code {exit_code}"


def report() -> bool:
    """Write and print the table of this process's sweep, if it ran one; tell whether a job failed."""
    if _begun is None:
        return False
    folder, since = _begun
    found = [path for name in (_RECORD, _REFUSED) for path in folder.rglob(name)]
    files = sorted(found, key=lambda path: path.stat().st_mtime)
    kept = [json.loads(path.read_text()) for path in files if path.stat().st_mtime >= since - _CLOCKS]
    youngest = {job["job"]: job for job in kept}
    jobs = [youngest[number] for number in sorted(youngest)]
    if not jobs:
        return False
    shared = set.intersection(*(set(job["overrides"]) for job in jobs)) if len(jobs) > 1 else set()
    for job in jobs:
        job["overrides"] = " ".join(item for item in job["overrides"] if item not in shared)
        job["folder"] = os.path.relpath(job["folder"], folder)
    with staged(folder / "sweep.csv") as hidden, hidden.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, _COLUMNS)
        table.writeheader()
        table.writerows(jobs)
    with staged(folder / "sweep.md") as hidden:
        hidden.write_text(_markdown(jobs))
    _print(jobs, folder)
    return any(job["status"] != "done" for job in jobs)


def _cells(job: dict[str, Any]) -> list[str]:
    shown = dict(job)
    if job["time"] is not None:
        shown["time"] = str(timedelta(seconds=round(job["time"])))
    if job["mIoU"] is not None:
        shown["mIoU"] = f"{100 * job['mIoU']:.2f}"
    return ["-" if shown[name] is None else str(shown[name]) for name in _COLUMNS]


def _markdown(jobs: list[dict[str, Any]]) -> str:
    rows = [_COLUMNS, ("---",) * len(_COLUMNS), *([cell.replace("|", "\\|") for cell in _cells(job)] for job in jobs)]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _print(jobs: list[dict[str, Any]], folder: Path) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*_COLUMNS, title=f"Sweep in {os.path.relpath(folder)}", title_justify="left")
    for job in jobs:
        table.add_row(*map(Text, _cells(job)))
    Console().print(table)
