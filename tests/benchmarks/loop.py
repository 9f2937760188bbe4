"""What our loop adds to a step: `FASTFCN_SHARED=<dir> python -m tests.benchmarks.loop [experiments/speed_training.md]`.

The study `camvid` with W&B (offline), TensorBoard and every callback on, against a bare loop of the same network, loss,
optimizer and batches. Both train in turns, in one process; without validation, which is no step. Also how long it takes
from the command to the first batch, and to the end of the first step.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import lightning as L
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from fastfcn_pl import build, config
from fastfcn_pl.loggers import closing_wandb
from fastfcn_pl.models.layout import lay_out
from tests.benchmarks.measure import machine
from tests.benchmarks.report import table, write

WATCHED = ["logger=all", "logger.wandb.mode=offline"]
_WARM_UP = 3


class Steps(L.Callback):
    """Knows when each batch began."""

    def __init__(self) -> None:
        self.begun: list[float] = []

    def on_train_batch_start(self, *args: object) -> None:
        self.begun.append(time.perf_counter())


class FirstStep(L.Callback):
    """Writes to `file` when the first batch began and when it was trained on, in seconds since the epoch."""

    def __init__(self, *, file: str) -> None:
        self.file, self.begun = Path(file), 0.0

    def on_train_batch_start(self, *args: object) -> None:
        self.begun = time.time()

    def on_train_batch_end(self, *args: object) -> None:
        self.file.write_text(f"{self.begun} {time.time()}")


def ours(overrides: Sequence[str], steps: int) -> list[float]:
    """Return the seconds from batch to batch under Lightning, with everything on."""
    with tempfile.TemporaryDirectory() as folder:
        cfg = _compose([*WATCHED, f"trainer.max_steps={steps}", "trainer.num_sanity_val_steps=0", *overrides])
        cfg.run_dir, cfg.trainer.limit_val_batches = folder, 0
        data, timed = build.datamodule(cfg), Steps()
        trainer = build.trainer(cfg)
        trainer.callbacks.append(timed)
        with closing_wandb(folder):
            trainer.fit(build.module(cfg, data.spec), datamodule=data)
    return _intervals(timed.begun)


def bare(overrides: Sequence[str], steps: int) -> list[float]:
    """Return the seconds from batch to batch of a loop that only trains."""
    cfg = _compose(overrides)
    data = build.datamodule(cfg)
    module = build.module(cfg, data.spec).train()
    module.memory_format = lay_out(module.model, cfg.channels_last, torch.device("cpu"), half=False)
    optimizer = module.make_optimizer(module.model, data.batch_size)
    scheduler, begun = module.make_scheduler(optimizer, steps), []
    loader = data.train_dataloader()
    while len(begun) < steps:
        for batch in loader:
            begun.append(time.perf_counter())
            optimizer.zero_grad()
            output = module.model(module.normalize(batch["image"]))
            total, _ = module.loss(output, batch["target"], module.model.align_corners)
            total.backward()
            optimizer.step()
            scheduler.step()
            if len(begun) == steps:
                break
    return _intervals(begun)


def _intervals(begun: list[float]) -> list[float]:
    return [after - before for before, after in zip(begun[_WARM_UP:], begun[_WARM_UP + 1 :], strict=False)]


def _compose(overrides: Sequence[str]) -> DictConfig:
    config.register()
    with initialize_config_dir(str(config.CONF_DIR), version_base="1.3"):
        return compose("camvid", [*overrides, "run_dir=unset"])


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
    file: str | None = None, rounds: int = 3, steps: int = 15, root: Path | None = None, overrides: Sequence[str] = ()
) -> str:
    """Measure, print the table, and write it into `file`."""
    root = root or Path(os.environ["FASTFCN_SHARED"], "data", "CamVid")
    # The networks' weights do not matter here. Batches are read between steps, as workers would be in the way of both.
    own = [f"data.root={root}", "model.backbone.pretrained=false", "data.num_workers=0", *overrides]
    contenders = {"bare loop": bare, "ours, logger=all": ours}
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(rounds):
        for name in [*contenders][:: 1 if turn % 2 else -1]:
            seconds[name] += contenders[name](own, steps)
    medians = {name: median(of) for name, of in seconds.items()}
    base = medians["bare loop"]
    rows = [[name, f"{1e3 * of:.0f}", f"{100 * (of / base - 1):.1f}"] for name, of in medians.items()]
    text = f"Study camvid, medians of {len(seconds['bare loop'])} steps each. {machine()}\n\n"
    text += table(["", "ms a step", "% more"], [*rows, ["to stay below", "", "3.0"]])
    begun, ended = first_step([f"data.root={root}", "model.backbone.pretrained=false", *overrides])
    text += f"\n\nFrom the command to the first batch: {begun:.1f} s; to the end of its step: {ended:.1f} s."
    print(text)
    if file is not None:
        write(Path(file), "Loop", "FASTFCN_SHARED=<dir> python -m tests.benchmarks.loop", text)
    return text


if __name__ == "__main__":
    main(*sys.argv[1:2])
