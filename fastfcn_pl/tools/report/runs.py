"""Runs read from their folders: configuration, progress and results. A run may still be in progress."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

from fastfcn_pl.config.moved_targets import upgraded
from fastfcn_pl.core.types import UserError
from fastfcn_pl.engine.sweep import ERROR
from fastfcn_pl.tools.report import run_schema
from fastfcn_pl.tools.report.files import read_json, read_line, read_metrics, read_yaml
from fastfcn_pl.tools.report.image_counts import ImageCounts, read_counts
from fastfcn_pl.tools.report.settings import format_value, is_machine_specific

SILENT_SECONDS = 900
"""Seconds without an update after which an unfinished run counts as silent instead of running."""


@dataclass(frozen=True)
class State:
    """State of a run: `kind` is finished, running, silent or failed; `text` has details."""

    kind: str
    text: str


@dataclass(frozen=True)
class Run:
    """One training run, finished or not, or one finished benchmark."""

    folder: Path

    @cached_property
    def results(self) -> dict[str, Any] | None:
        """Content of `results.json`; None before the final scoring."""
        return read_json(self.folder / "results.json", run_schema.RESULTS)

    @cached_property
    def config(self) -> dict[str, Any]:
        """Composed configuration, unresolved."""
        path = self.folder / ".hydra" / "config.yaml"
        shape = run_schema.TRAIN_CONFIG if self.entry_point == "train" else run_schema.CONFIG
        return upgraded(read_yaml(path, shape))

    @cached_property
    def _hydra(self) -> dict[str, Any]:
        return read_yaml(self.folder / ".hydra" / "hydra.yaml", run_schema.HYDRA)["hydra"]

    @property
    def entry_point(self) -> str:
        return self._hydra["job"]["name"]

    @property
    def study(self) -> str:
        """Name of the primary config."""
        return self._hydra["job"]["config_name"]

    @property
    def overrides(self) -> list[str]:
        """Overrides of the command line and of the sweep."""
        return list(self._hydra["overrides"]["task"])

    @property
    def choices(self) -> dict[str, str]:
        """Selected option of each config group."""
        choices = self._hydra["runtime"]["choices"]
        return {k: v for k, v in choices.items() if not k.startswith("hydra/") and not is_machine_specific(k)}

    @cached_property
    def command(self) -> str:
        """Command that started the run or its sweep, without machine-specific folders."""
        multirun = self.folder.parent / "multirun.yaml"
        return _command(read_yaml(multirun, run_schema.HYDRA)["hydra"] if multirun.is_file() else self._hydra)

    def setting(self, key: str) -> str | None:
        """Return the option of a config group, or the value of a key, as text; None if there is none."""
        if key == "study":
            return self.study
        if key in self.choices:
            return self.choices[key]
        value: Any = self.config
        for part in key.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        return None if value is None else format_value(value)

    @property
    def seed(self) -> int:
        return self.config["seed"]

    @cached_property
    def _metrics(self) -> dict[str, list[tuple[int, float]]]:
        return read_metrics(self.folder / "metrics" / "metrics.csv")

    def curve(self, column: str) -> list[tuple[int, float]]:
        """Return steps and values of one logged metric."""
        return self._metrics.get(column, [])

    @property
    def score(self) -> float | None:
        """Final mIoU; before that, the best mIoU of the validations so far."""
        if self.results is not None:
            return self.results["mIoU"]
        return max((value for _, value in self.curve("val/mIoU")), default=None)

    @property
    def iou(self) -> dict[str, float | None]:
        """IoU by class of the final scoring; before that, of the last validation."""
        if self.results is not None:
            return self.results["IoU"]
        prefix = "val/IoU/"
        return {k.removeprefix(prefix): v[-1][1] for k, v in self._metrics.items() if k.startswith(prefix) and v}

    @cached_property
    def measured(self) -> dict[str, Any] | None:
        """Measurement of `benchmark`; None if it has not measured this run's network."""
        is_benchmark = self.entry_point == "benchmark"
        shape = run_schema.BENCHMARK_RUN if is_benchmark else run_schema.BENCHMARK
        return read_json(self.folder / "benchmark.json", shape)

    @cached_property
    def counts(self) -> ImageCounts | None:
        """Pixel counts of each image of the final scoring; None in folders written before they were kept."""
        if self.results is None:
            return None
        return read_counts(self.folder / "images.npz", int(self.results["images"]), len(self.results["IoU"]))

    @cached_property
    def metadata(self) -> dict[str, Any]:
        """Commit, versions and hardware. For an unfinished run, they come from its logger's `hparams.yaml`."""
        if self.results is not None:
            return self.results
        if self.entry_point == "benchmark" and self.measured is not None:
            return {**self.measured, "processor": self.measured["device"]}
        return read_yaml(self.folder / "metrics" / "hparams.yaml", run_schema.HPARAMS)

    @cached_property
    def cost(self) -> dict[str, Any]:
        """Cost of the network, with a description of the measurement as `measured`; from `benchmark` if available."""
        cost = self.measured
        if cost is not None:
            device = f"{cost['device']}, {cost['precision']}" + (f", {t} threads" if (t := cost["threads"]) else "")
            return {**cost, "measured": f"by benchmark, batch {cost['batch']} of {_size(cost)} on {device}"}
        keys = ("parameters", "gmacs", "latency_ms", "peak_mib", "size")
        cost = self.metadata.get("cost") or {key: self.metadata[key] for key in keys if key in self.metadata}
        device = f"{self.metadata.get('processor')}"
        return {**cost, "measured": f"at the start of training, one image of {_size(cost)}, 32-true on {device}"}

    @property
    def seconds(self) -> float | None:
        """Duration of training; for an unfinished run, the time from its start to its last update."""
        if self.results is not None:
            seconds = self.results.get("train_seconds")
            return None if seconds is None else max(0.0, min(float(seconds), 1e9))
        return self._last_update - (self.folder / ".hydra" / "config.yaml").stat().st_mtime

    @property
    def _last_update(self) -> float:
        files = ("metrics/metrics.csv", "checkpoints/last.ckpt", ".hydra/config.yaml")
        return max(path.stat().st_mtime for path in (self.folder / name for name in files) if path.is_file())

    @cached_property
    def state(self) -> State:
        if self.results is not None:
            return State("finished", "finished")
        error = self.folder / ERROR
        if error.is_file():
            return State("failed", f"failed: {read_line(error)}")
        job = self.folder / ".hydra" / "sweep_job.json"
        if (
            job.is_file()
            and job.stat().st_mtime >= self._last_update - 1
            and (record := read_json(job, run_schema.SWEEP_JOB))
        ):
            return State("failed", record["status"] if record["status"] != "done" else "failed: no results.json")
        if any((self.folder / "not_finite").glob("*.md")):
            return State("failed", f"failed{self._progress}: a loss was not finite")
        silence = max(0.0, time.time() - self._last_update)
        duration = str(timedelta(seconds=round(silence)))
        if silence < SILENT_SECONDS:
            return State("running", f"running{self._progress}, last update {duration} ago")
        return State("silent", f"not finished{self._progress}, no update for {duration}")

    @property
    def _progress(self) -> str:
        epochs, steps = self.curve("epoch"), self.config["trainer"].get("max_steps")
        if not epochs:
            return ", nothing logged yet"
        if steps and steps > 0:
            return f", step {epochs[-1][0]} of {steps}"
        return f", epoch {int(epochs[-1][1]) + 1} of {self.config['trainer'].get('max_epochs')}"


def find_runs(folders: list[Path]) -> list[Run]:
    """Return the runs of `train` and `benchmark` in `folders`, at any depth.

    Raises UserError for a folder without runs.
    """
    runs: dict[Path, Run] = {}
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"{folder}: no such folder; use the folder of a run or a sweep, or one that contains some")
        runs_below = list(_walk_runs(folder))
        if not runs_below:
            raise UserError(
                f"{folder} contains no run: there is no .hydra/hydra.yaml of `fastfcn_pl.train`, or of a finished "
                "`fastfcn_pl.benchmark`, in it (hydra.run.dir moves a whole run)"
            )
        runs |= {run.folder.resolve(): run for run in runs_below}
    return list(runs.values())


def _walk_runs(folder: Path) -> Iterator[Run]:
    """Yield the runs below a folder, with the jobs of a sweep in numerical order."""
    visited: set[str] = set()
    for path, names, _ in os.walk(folder, followlinks=True):
        real = os.path.realpath(path)
        if real in visited:  # through a symbolic link to a parent
            names.clear()
            continue
        visited.add(real)
        names.sort(key=lambda name: (not name.isdecimal(), int(name) if name.isdecimal() else 0, name))
        run = Run(Path(path))
        if (run.folder / ".hydra" / "hydra.yaml").is_file():
            names.clear()  # runs do not contain runs
            if run.entry_point == "train" or (run.entry_point == "benchmark" and run.measured is not None):
                yield run


def _size(cost: dict[str, Any]) -> str:
    return "x".join(map(str, cost.get("size") or (512, 512)))


def _command(hydra: dict[str, Any]) -> str:
    job, sources, overrides = hydra["job"], hydra["runtime"]["config_sources"], hydra["overrides"]
    config_dir = [f"-cd {Path(s['path'] or '').name}" for s in sources if s["provider"] == "command-line"]
    study = [f"-cn {job['config_name']}"] if job["config_name"] != job["name"] else []
    multirun = ["-m"] if "hydra.mode=MULTIRUN" in overrides["hydra"] else []
    plugins = [o for o in overrides["hydra"] if o.startswith(("hydra/", "hydra.sweeper", "hydra.launcher"))]
    task = [o if not o.startswith("data.root=") else "data.root=<dir>" for o in overrides["task"]]
    return " ".join([f"python -m fastfcn_pl.{job['name']}", *config_dir, *study, *multirun, *plugins, *task])
