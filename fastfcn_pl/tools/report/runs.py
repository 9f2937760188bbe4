"""What a run's folder tells: what was asked, how far it came, what it found. Nothing of it needs to be finished."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

from fastfcn_pl.core.types import UserError
from fastfcn_pl.engine.sweep import ERROR
from fastfcn_pl.tools.report import run_schema
from fastfcn_pl.tools.report.files import read_json, read_line, read_metrics, read_yaml

SILENT = 900
"""Seconds without a sign after which a run that has not ended is no longer called running."""
_DATA_OF_ONE_MACHINE = ("data.root", "data.num_workers", "data.loader")
_OF_ONE_MACHINE = ("run_dir", "logger", "hydra", "checkpoint", "debug", "trust", *_DATA_OF_ONE_MACHINE)


@dataclass(frozen=True)
class State:
    """How a run stands: `kind` is finished, running, silent or failed; `text` says more."""

    kind: str
    text: str


@dataclass(frozen=True)
class Run:
    """The folder of one training run, finished or not, or of a benchmark that is done."""

    folder: Path

    @cached_property
    def results(self) -> dict[str, Any] | None:
        """What the final score wrote; None before."""
        return read_json(self.folder / "results.json", run_schema.RESULTS)

    @cached_property
    def config(self) -> dict[str, Any]:
        """The composed configuration, its interpolations as they were written."""
        path = self.folder / ".hydra" / "config.yaml"
        return read_yaml(path, run_schema.TRAIN_CONFIG if self.entry_point == "train" else run_schema.CONFIG)

    @cached_property
    def _hydra(self) -> dict[str, Any]:
        return read_yaml(self.folder / ".hydra" / "hydra.yaml", run_schema.HYDRA)["hydra"]

    @property
    def entry_point(self) -> str:
        return self._hydra["job"]["name"]

    @property
    def study(self) -> str:
        """The name of the primary config that it ran."""
        return self._hydra["job"]["config_name"]

    @property
    def overrides(self) -> list[str]:
        """What the command line, or a sweep, changed."""
        return list(self._hydra["overrides"]["task"])

    @property
    def choices(self) -> dict[str, str]:
        """The option chosen in each config group."""
        chosen = self._hydra["runtime"]["choices"]
        return {k: v for k, v in chosen.items() if not k.startswith("hydra/") and not of_one_machine(k)}

    @cached_property
    def command(self) -> str:
        """What started it or its sweep, without the folders that are of one machine."""
        multirun = self.folder.parent / "multirun.yaml"
        return _command(read_yaml(multirun, run_schema.HYDRA)["hydra"] if multirun.is_file() else self._hydra)

    def setting(self, key: str) -> str | None:
        """Return the option of a config group, or the value of a key, as text; None where there is none."""
        if key == "study":
            return self.study
        if key in self.choices:
            return self.choices[key]
        value: Any = self.config
        for part in key.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        return None if value is None else shown(value)

    @property
    def seed(self) -> int:
        return self.config["seed"]

    @cached_property
    def _metrics(self) -> dict[str, list[tuple[int, float]]]:
        return read_metrics(self.folder / "metrics" / "metrics.csv")

    def curve(self, column: str) -> list[tuple[int, float]]:
        """Return steps and values of a column of the run's metrics, so far as it came."""
        return self._metrics.get(column, [])

    @property
    def score(self) -> float | None:
        """The mIoU: of the final score, before it the best one that a validation found so far."""
        if self.results is not None:
            return self.results["mIoU"]
        return max((value for _, value in self.curve("val/mIoU")), default=None)

    @property
    def iou(self) -> dict[str, float | None]:
        """The IoU by class: of the final score, before it of the last validation."""
        if self.results is not None:
            return self.results["IoU"]
        prefix = "val/IoU/"
        return {k.removeprefix(prefix): v[-1][1] for k, v in self._metrics.items() if k.startswith(prefix) and v}

    @cached_property
    def measured(self) -> dict[str, Any] | None:
        """What `benchmark` wrote about its network; None where it was not asked."""
        alone = self.entry_point == "benchmark"
        return read_json(self.folder / "benchmark.json", run_schema.BENCHMARK_ALONE if alone else run_schema.BENCHMARK)

    @cached_property
    def about(self) -> dict[str, Any]:
        """Commit, versions and hardware; of a run that is not finished, from what its logger wrote at the start."""
        if self.results is not None:
            return self.results
        if self.entry_point == "benchmark" and self.measured is not None:
            return {**self.measured, "processor": self.measured["device"]}
        return read_yaml(self.folder / "metrics" / "hparams.yaml", run_schema.HPARAMS)

    @cached_property
    def cost(self) -> dict[str, Any]:
        """What the network costs, and `measured`: on what; by `benchmark` where that has measured it."""
        found = self.measured
        if found is not None:
            where = f"{found['device']}, {found['precision']}" + (f", {t} threads" if (t := found["threads"]) else "")
            return {**found, "measured": f"by benchmark, batch {found['batch']} of {_size(found)} on {where}"}
        keys = ("parameters", "gmacs", "latency_ms", "peak_mib", "size")
        found = self.about.get("cost") or {key: self.about[key] for key in keys if key in self.about}
        where = f"as training began, one image of {_size(found)}, 32-true on {self.about.get('processor')}"
        return {**found, "measured": where}

    @property
    def seconds(self) -> float | None:
        """How long training took; of a run that is not finished, from its start to its last sign."""
        if self.results is not None:
            seconds = self.results.get("train_seconds")
            return None if seconds is None else max(0.0, min(float(seconds), 1e9))
        return self._last_sign - (self.folder / ".hydra" / "config.yaml").stat().st_mtime

    @property
    def _last_sign(self) -> float:
        signs = ("metrics/metrics.csv", "checkpoints/last.ckpt", ".hydra/config.yaml")
        return max(path.stat().st_mtime for path in (self.folder / name for name in signs) if path.is_file())

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
            and job.stat().st_mtime >= self._last_sign - 1
            and (ended := read_json(job, run_schema.SWEEP_JOB))
        ):
            return State("failed", ended["status"] if ended["status"] != "done" else "failed: it left no results.json")
        if any((self.folder / "not_finite").glob("*.md")):
            return State("failed", f"failed{self._progress}: a loss was not finite")
        silence = max(0.0, time.time() - self._last_sign)
        ago = str(timedelta(seconds=round(silence)))
        if silence < SILENT:
            return State("running", f"running{self._progress}, last sign {ago} ago")
        return State("silent", f"not finished{self._progress}, silent for {ago}")

    @property
    def _progress(self) -> str:
        epochs, steps = self.curve("epoch"), self.config["trainer"].get("max_steps")
        if not epochs:
            return ", nothing logged yet"
        if steps and steps > 0:
            return f", step {epochs[-1][0]} of {steps}"
        return f", epoch {int(epochs[-1][1]) + 1} of {self.config['trainer'].get('max_epochs')}"


def find(folders: list[Path]) -> list[Run]:
    """Return the runs of `train` and `benchmark` in `folders`: each is a run's, a sweep's, or holds some of these.

    Raises UserError for a folder in which there is none.
    """
    found: dict[Path, Run] = {}
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"{folder}: no such folder; give a run's, a sweep's, or one that holds some")
        runs = list(_below(folder))
        if not runs:
            raise UserError(
                f"{folder} is not the folder of a run and holds none: no .hydra/hydra.yaml of `fastfcn_pl.train`, or "
                "of a `fastfcn_pl.benchmark` that is done, is in it (hydra.run.dir moves a whole run)"
            )
        found |= {run.folder.resolve(): run for run in runs}
    return list(found.values())


def _below(folder: Path) -> Iterator[Run]:
    seen: set[str] = set()
    for path, names, _ in os.walk(folder, followlinks=True):
        real = os.path.realpath(path)
        if real in seen:  # by a link that leads back
            names.clear()
            continue
        seen.add(real)
        names.sort(key=lambda name: (not name.isdecimal(), int(name) if name.isdecimal() else 0, name))
        run = Run(Path(path))
        if (run.folder / ".hydra" / "hydra.yaml").is_file():
            names.clear()  # there is no run in a run
            if run.entry_point == "train" or (run.entry_point == "benchmark" and run.measured is not None):
                yield run


def of_one_machine(key: str) -> bool:
    """Tell whether a key says where or how a run was kept, and nothing about its outcome."""
    return any(key == name or key.startswith((f"{name}.", f"{name}/")) for name in _OF_ONE_MACHINE)


def key_of(override: str) -> str:
    """Return the key, or the group, that an override of Hydra's grammar sets."""
    return override.lstrip("+~").partition("=")[0]


def shown(value: Any) -> str:
    """Return a value as YAML users write it."""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else json.dumps(value) if isinstance(value, dict) else str(value)


def _size(cost: dict[str, Any]) -> str:
    return "x".join(map(str, cost.get("size") or (512, 512)))


def _command(hydra: dict[str, Any]) -> str:
    job, sources, given = hydra["job"], hydra["runtime"]["config_sources"], hydra["overrides"]
    own = [f"-cd {Path(source['path'] or '').name}" for source in sources if source["provider"] == "command-line"]
    study = [f"-cn {job['config_name']}"] if job["config_name"] != job["name"] else []
    several = ["-m"] if "hydra.mode=MULTIRUN" in given["hydra"] else []
    extra = [o for o in given["hydra"] if o.startswith(("hydra/", "hydra.sweeper", "hydra.launcher"))]
    task = [o if not o.startswith("data.root=") else "data.root=<dir>" for o in given["task"]]
    return " ".join([f"python -m fastfcn_pl.{job['name']}", *own, *study, *several, *extra, *task])
