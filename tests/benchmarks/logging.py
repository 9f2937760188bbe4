"""Cost of loggers and callbacks: `FASTFCN_SHARED=<dir> python -m tests.benchmarks.logging [rounds=3] [output=<page>]`.

An epoch of the study `camvid` on all of CamVid, its validation included, with W&B (offline) and TensorBoard on, and
with `logger=none`. Contenders take turns in one process; ratios are of medians. Processor time is this process's, in
which other work on the machine shows less than in wall time; W&B's own process works beside it. What the callbacks
take that log is timed, too, and does not drown where the machine's speed drifts. `output` is a page such as
experiments/speed/training.md; `times=<file>` keeps the times of all rounds, to which a later call adds its own.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import lightning as L
from lightning.pytorch.profilers import SimpleProfiler

from fastfcn_pl.config import build
from fastfcn_pl.core.tables import markdown_table
from fastfcn_pl.training.loggers import closing_wandb
from tests.benchmarks import camvid
from tests.benchmarks.report import report

Times = tuple[float, float, float]
"""Seconds on the wall, of the processor, and on the wall inside of callbacks that log."""
LOGGING = ("Samples", "ClassScores", "GradientNorm", "RunFacts", "RunFiles", "LearningRateMonitor", "Throughput")
CONTENDERS = {
    "logger=none": ["logger=none"],
    "logger=all": ["logger=all", "logger.wandb.mode=offline"],
}


class _Epoch(L.Callback):
    """Times an epoch, from its first batch to the end of its validation and of its checkpoints."""

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._begun = time.perf_counter(), time.process_time()

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        wall, processor = self._begun
        self.times = time.perf_counter() - wall, time.process_time() - processor


def _inside(profiler: SimpleProfiler) -> float:
    """Return the seconds of all hooks of the callbacks that log."""
    prefixes = tuple(f"[Callback]{name}" for name in LOGGING)
    return sum(sum(seconds) for name, seconds in profiler.recorded_durations.items() if name.startswith(prefixes))


def epoch(root: Path, overrides: Sequence[str]) -> Times:
    """Train for one epoch and return what it took."""
    with tempfile.TemporaryDirectory() as folder:
        cfg = camvid.config(
            ["trainer.max_epochs=1", "trainer.check_val_every_n_epoch=1", f"data.root={root}", *overrides]
        )
        cfg.run_dir = folder
        data, timed = camvid.datamodule(cfg), _Epoch()
        trainer = build.trainer(cfg)
        trainer.callbacks.append(timed)
        trainer.profiler = profiler = SimpleProfiler()
        with closing_wandb(folder):
            trainer.fit(build.module(cfg, data.spec), datamodule=data)
    return *timed.times, _inside(profiler)


def measure(root: Path, rounds: int, kept: Path | None, overrides: Sequence[str]) -> dict[str, list[Times]]:
    """Return the times of each contender, those of earlier calls in `kept` included, after a few batches to warm up."""
    found: dict[str, list[Times]] = {name: [] for name in CONTENDERS}
    if kept is not None and kept.is_file():
        found = json.loads(kept.read_text())
    few = ["trainer.limit_train_batches=4", "trainer.limit_val_batches=4"]
    for name in CONTENDERS:
        epoch(root, [*CONTENDERS[name], *overrides, *few])
    begun = len(found["logger=none"])
    for turn in range(begun, begun + rounds):
        for name in [*CONTENDERS][:: 1 if turn % 2 else -1]:
            found[name].append(epoch(root, [*CONTENDERS[name], *overrides]))
            print(f"round {turn + 1}, {name}: " + ", ".join(f"{seconds:.1f} s" for seconds in found[name][-1]))
        if kept is not None:
            kept.write_text(json.dumps(found))
    return found


def main(
    rounds: int = 3,
    times: Path | None = None,
    output: Path | None = None,
    root: Path | None = None,
    overrides: Sequence[str] = (),
) -> str:
    """Measure, print the table, and write it into `output`."""
    found = measure(root or Path(os.environ["FASTFCN_SHARED"], "data", "CamVid"), rounds, times, overrides)
    medians = {name: [median(column) for column in zip(*taken, strict=True)] for name, taken in found.items()}
    base, count = medians["logger=none"], len(found["logger=none"])
    rows = [
        [
            name,
            *(f"{wall:.1f}", f"{wall / base[0]:.3f}", f"{processor:.1f}", f"{processor / base[1]:.3f}"),
            *(f"{inside:.2f}", f"{inside / wall:.3f}"),
        ]
        for name, (wall, processor, inside) in medians.items()
    ]
    heads = ["s an epoch", "times", "s of the processor", "times", "s in callbacks that log", "share of the epoch"]
    text = markdown_table([f"medians of {count}", *heads], rows)
    report(output, "Logging", f"python -m tests.benchmarks.logging rounds={count}", text)
    return text


if __name__ == "__main__":
    given = dict(argument.split("=", 1) for argument in sys.argv[1:])
    paths = {name: Path(given[name]) for name in ("times", "output") if name in given}
    main(int(given.get("rounds", 3)), **paths)
