"""How far a run is: a bar on a terminal, plain lines where output goes to a file."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ProgressBar, RichProgressBar
from lightning.pytorch.callbacks.progress.rich_progress import CustomBarColumn, CustomTimeColumn
from rich.console import Console
from rich.progress import TextColumn

from fastfcn_pl.training.module import SegmentationModule


def progress(*, every_seconds: float) -> ProgressBar:
    """Return a bar where output is a terminal or a notebook, else lines, one in `every_seconds` and one an epoch."""
    console = Console()
    return Bar() if console.is_terminal or console.is_jupyter else Lines(every_seconds)


class _Clock:
    """Tells how long training will take, from the steps that this session has made."""

    def __init__(self, trainer: L.Trainer) -> None:
        self._begun, self._steps = time.monotonic(), trainer.global_step

    def left(self, trainer: L.Trainer, pl_module: SegmentationModule) -> str:
        done, total = trainer.global_step - self._steps, pl_module.total_steps
        if done == 0 or total is None:
            return "-"
        seconds = (time.monotonic() - self._begun) / done * max(total - trainer.global_step, 0)
        return str(timedelta(seconds=round(seconds)))


def _state(trainer: L.Trainer, pl_module: SegmentationModule, clock: _Clock) -> dict[str, str]:
    """Return what both show of training: step, loss, images a second, time left."""
    found = {"step": f"{trainer.global_step}/{pl_module.total_steps}"}
    for name, key, digits in (("loss", "train/loss", 3), ("images/s", "train/images_per_second", 1)):
        if key in trainer.callback_metrics:
            found[name] = f"{trainer.callback_metrics[key]:.{digits}f}"
    return {**found, "left": clock.left(trainer, pl_module)}


class Bar(RichProgressBar):
    """Lightning's bar, with epochs counted from 1, images a second, and the time left for all of training."""

    _clock: _Clock | None = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        self._clock = _Clock(trainer)

    def _get_train_description(self, current_epoch: int) -> str:
        return _epoch(self.trainer)

    def get_metrics(self, trainer: L.Trainer, pl_module: SegmentationModule) -> dict[str, Any]:  # type: ignore[override]
        scores = {name: value for name, value in trainer.progress_bar_metrics.items() if not name.startswith("train/")}
        if self._clock is None:  # a validation before training, to see that it works
            return scores
        return {**_state(trainer, pl_module, self._clock), **scores}

    def configure_columns(self, trainer: L.Trainer) -> list[Any]:
        theme = self.theme
        return [
            TextColumn("{task.description}"),
            CustomBarColumn(
                bar_width=20, complete_style=theme.progress_bar, finished_style=theme.progress_bar_finished
            ),
            TextColumn("{task.completed:.0f}/{task.total:.0f}"),
            CustomTimeColumn(style=theme.time),
        ]


class Lines(ProgressBar):
    """A line now and then, without escape codes or carriage returns."""

    def __init__(self, every_seconds: float) -> None:
        super().__init__()
        self.every_seconds = every_seconds
        self._enabled, self._said = True, 0.0

    def disable(self) -> None:
        self._enabled = False

    def enable(self) -> None:
        self._enabled = True

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._clock, self._said = _Clock(trainer), time.monotonic()

    def on_train_batch_end(  # type: ignore[override]
        self, trainer: L.Trainer, pl_module: SegmentationModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if batch_idx + 1 == trainer.num_training_batches or self._due():
            state = _state(trainer, pl_module, self._clock)
            self._say(_epoch(trainer), *(f"{name} {value}" for name, value in state.items()))

    def on_validation_end(self, trainer: L.Trainer, pl_module: SegmentationModule) -> None:  # type: ignore[override]
        if not trainer.sanity_checking:
            scores = pl_module.scores
            accuracy = f"pixel accuracy {100 * scores.pixel_accuracy:.2f}"
            self._say("Validation", f"step {trainer.global_step}", f"mIoU {100 * scores.mean_iou:.2f}", accuracy)

    def on_validation_batch_end(self, trainer: L.Trainer, *args: Any) -> None:
        if not trainer.sanity_checking and self._due():
            self._say("Validation", f"image {args[3] + 1}/{trainer.num_val_batches[0]}")

    def on_test_batch_end(self, trainer: L.Trainer, *args: Any) -> None:
        if self._due():
            self._say("Scoring", f"image {args[3] + 1}/{trainer.num_test_batches[0]}")

    def _due(self) -> bool:
        return time.monotonic() - self._said >= self.every_seconds

    def _say(self, *parts: str) -> None:
        if self._enabled:
            print(", ".join(parts), flush=True)
        self._said = time.monotonic()


def _epoch(trainer: L.Trainer) -> str:
    known = trainer.max_epochs is not None and trainer.max_epochs > 0
    return f"Epoch {trainer.current_epoch + 1}" + (f"/{trainer.max_epochs}" if known else "")
