"""Overhead of our loop: `FASTFCN_SHARED=<dir> python -m tests.benchmarks.loop [experiments/speed/training.md]`.

The study `camvid` with W&B (offline), TensorBoard and every callback on, against a bare loop of the same network, loss,
optimizer and batches. Both train in turns, in one process; without validation, which is no step. What a loop adds is
the time of a step that is not spent in the work that both do, since a machine's speed drifts by more than that between
their turns. Also how long it takes from the command to the first batch, and to the end of the first step.
"""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import mean, median
from typing import Any
from unittest.mock import patch

import lightning as L
import torch
from torch import Tensor
from torch.utils.data.dataloader import _SingleProcessDataLoaderIter

from fastfcn_pl.acceleration.training import optimize_for_training
from fastfcn_pl.config import build
from fastfcn_pl.core.tables import markdown_table
from fastfcn_pl.losses.weighted_sum import WeightedSum
from fastfcn_pl.models.segmenter import Segmenter
from fastfcn_pl.training.loggers import closing_wandb
from fastfcn_pl.training.module import SegmentationModule
from tests.benchmarks import camvid
from tests.benchmarks.measure import machine
from tests.benchmarks.report import report

WATCHED = ["logger=all", "logger.wandb.mode=offline"]
WORK = [
    (_SingleProcessDataLoaderIter, "_next_data"),
    (SegmentationModule, "normalize"),
    (Segmenter, "forward"),
    (WeightedSum, "forward"),
    (Tensor, "backward"),
    (importlib.import_module("torch.optim.adam"), "adam"),
]
"""Parts of a step in any loop, none of which calls another."""
_WARM_UP = 3


class Clock:
    """Seconds on the wall, and those of them in `WORK`, when each batch began."""

    def __init__(self) -> None:
        self.working, self.begun = 0.0, list[tuple[float, float]]()

    def start_batch(self) -> None:
        self.begun.append((time.perf_counter(), self.working))

    def steps(self) -> list[tuple[float, float]]:
        """Return for each step behind the first ones how long it took, and how much of that was no work."""
        pairs = zip(self.begun[_WARM_UP:], self.begun[_WARM_UP + 1 :], strict=False)
        return [(end - start, (end - start) - (worked - before)) for (start, before), (end, worked) in pairs]

    @contextmanager
    def of_work(self) -> Iterator[None]:
        """Time what is in `WORK`, whoever calls it."""
        with ExitStack() as patches:
            for owner, name in WORK:
                patches.enter_context(patch.object(owner, name, self._timed(getattr(owner, name))))
            yield

    def _timed(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **options: Any) -> Any:
            start = time.perf_counter()
            try:
                return call(*args, **options)
            finally:
                self.working += time.perf_counter() - start

        return run


class Steps(L.Callback):
    """Tells `clock` when each batch begins."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def on_train_batch_start(self, *args: object) -> None:
        self.clock.start_batch()


class FirstStep(L.Callback):
    """Writes to `file` when the first batch began and when it was trained on, in seconds since the epoch."""

    def __init__(self, *, file: str) -> None:
        self.file, self.begun = Path(file), 0.0

    def on_train_batch_start(self, *args: object) -> None:
        self.begun = time.time()

    def on_train_batch_end(self, *args: object) -> None:
        self.file.write_text(f"{self.begun} {time.time()}")


def ours(overrides: Sequence[str], steps: int) -> list[tuple[float, float]]:
    """Return `Clock.steps` under Lightning, with everything on."""
    with tempfile.TemporaryDirectory() as folder:
        cfg = camvid.config([*WATCHED, f"trainer.max_steps={steps}", "trainer.num_sanity_val_steps=0", *overrides])
        cfg.run_dir, cfg.trainer.limit_val_batches = folder, 0
        data, clock = camvid.datamodule(cfg), Clock()
        trainer = build.trainer(cfg)
        trainer.callbacks.append(Steps(clock))
        with closing_wandb(folder), clock.of_work():
            trainer.fit(build.module(cfg, data.spec), datamodule=data)
    return clock.steps()


def bare(overrides: Sequence[str], steps: int) -> list[tuple[float, float]]:
    """Return `Clock.steps` of a loop that only trains."""
    cfg, clock = camvid.config(overrides), Clock()
    data = camvid.datamodule(cfg)
    module = build.module(cfg, data.spec).train()
    module.memory_format = optimize_for_training(
        module.model, device=torch.device("cpu"), precision="32-true", channels_last=cfg.channels_last
    )
    optimizer = module.make_optimizer(module.model, data.batch_size)
    scheduler, loader = module.make_scheduler(optimizer, steps), data.train_dataloader()
    with clock.of_work():
        while len(clock.begun) < steps:
            for batch in loader:
                clock.start_batch()
                optimizer.zero_grad()
                output = module.model(module.normalize(batch["image"]))
                total, _ = module.loss(output, batch["target"], module.model.align_corners)
                total.backward()
                optimizer.step()
                scheduler.step()
                if len(clock.begun) == steps:
                    break
    return clock.steps()


def first_step(overrides: Sequence[str]) -> tuple[float, float]:
    """Return the seconds from the command to the first batch, and to the end of its step."""
    with tempfile.TemporaryDirectory() as folder:
        watch = f"+callbacks.first={{_target_: tests.benchmarks.loop.FirstStep, file: {folder}/first}}"
        limits = ["trainer.max_steps=1", "trainer.limit_val_batches=1", f"hydra.run.dir={folder}/run", watch]
        command = [sys.executable, "-m", "fastfcn_pl.train", "-cn", "camvid", *WATCHED, *overrides, *limits]
        start = time.time()
        subprocess.run(command, check=True, capture_output=True)
        begun, ended = map(float, Path(folder, "first").read_text().split())
    return begun - start, ended - start


def main(
    file: str | None = None, rounds: int = 2, steps: int = 30, root: Path | None = None, overrides: Sequence[str] = ()
) -> str:
    """Measure, print the table, and write it into `file`."""
    root = root or Path(os.environ["FASTFCN_SHARED"], "data", "CamVid")
    # The networks' weights do not matter here. Batches are read between steps, as workers would be in the way of both.
    own = [f"data.root={root}", "model.backbone.pretrained=false", "data.num_workers=0", *overrides]
    contenders = {"bare loop": bare, "ours, logger=all": ours}
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in contenders}
    for turn in range(rounds):
        for name in [*contenders][:: 1 if turn % 2 else -1]:
            found[name] += contenders[name](own, steps)
    step = {name: median(seconds for seconds, _ in of) for name, of in found.items()}
    rest = {name: mean(seconds for _, seconds in of) for name, of in found.items()}  # what few steps do counts
    rows = [[name, f"{1e3 * step[name]:.0f}", f"{1e3 * rest[name]:.1f}"] for name in contenders]
    more = 100 * (rest["ours, logger=all"] - rest["bare loop"]) / step["bare loop"]
    text = f"Study camvid, {len(found['bare loop'])} steps each. {machine()}\n\n"
    text += markdown_table(
        ["", "ms a step (median)", "in none of reading, network, loss, backward, optimizer (mean)"], rows
    )
    text += f"\n\nOurs spends {more:.1f} % of a step more outside; to stay below: 3 %."
    begun, ended = first_step([f"data.root={root}", "model.backbone.pretrained=false", *overrides])
    text += f"\n\nFrom the command to the first batch: {begun:.1f} s; to the end of its step: {ended:.1f} s."
    report(file, "Loop", "FASTFCN_SHARED=<dir> python -m tests.benchmarks.loop", text)
    return text


if __name__ == "__main__":
    main(*sys.argv[1:2])
