"""Progress of a run: a bar on a terminal, plain lines if the output goes to a file."""

from __future__ import annotations

import time
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ProgressBar, RichProgressBar
from lightning.pytorch.callbacks.progress.rich_progress import CustomBarColumn
from rich.console import Console
from rich.progress import TextColumn

from fastfcn_pl.training.module import SegmentationModule

_BAR_WIDTH, _MIN_WIDTH = 8, 80
_LEFT_OUT_LAST = ("loss", "left")


def progress(*, every_seconds: float) -> ProgressBar:
    """Return a bar for a terminal or a notebook, else plain lines: one per `every_seconds` and one per epoch."""
    console = Console()
    return Bar() if console.is_terminal or console.is_jupyter else Lines(every_seconds)


class _Clock:
    """Estimate of the remaining training time, from the steps since training started or resumed."""

    def __init__(self, trainer: L.Trainer) -> None:
        self._start, self._start_step = time.monotonic(), trainer.global_step

    def remaining(self, trainer: L.Trainer, pl_module: SegmentationModule) -> str:
        steps, total = trainer.global_step - self._start_step, pl_module.total_steps
        if steps == 0 or total is None:
            return "-"
        seconds = (time.monotonic() - self._start) / steps * max(total - trainer.global_step, 0)
        minutes, second = divmod(round(seconds), 60)
        return f"{minutes // 60}:{minutes % 60:02}:{second:02}"


def _training_status(trainer: L.Trainer, pl_module: SegmentationModule, clock: _Clock) -> dict[str, str]:
    """Return step, loss, images per second and remaining time, as text."""
    status = {"step": f"{trainer.global_step}/{pl_module.total_steps}"}
    for name, key, digits in (("loss", "train/loss", 3), ("images/s", "train/images_per_second", 1)):
        if key in trainer.callback_metrics:
            status[name] = f"{trainer.callback_metrics[key]:.{digits}f}"
    return {**status, "left": clock.remaining(trainer, pl_module)}


class Bar(RichProgressBar):
    """Lightning's bar, with epochs counted from 1, images per second, and the remaining time of the whole training.

    A line is at most as wide as the terminal: the least important parts are left out.
    """

    _clock: _Clock | None = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        self._clock = _Clock(trainer)

    def _get_train_description(self, current_epoch: int) -> str:
        return _epoch(self.trainer)

    def get_metrics(self, trainer: L.Trainer, pl_module: SegmentationModule) -> dict[str, Any]:  # type: ignore[override]
        scores = {
            _score_name(name, pl_module): f"{100 * value:.2f}" if name.endswith("mIoU") else f"{value:.3f}"
            for name, value in trainer.progress_bar_metrics.items()
            if not name.startswith("train/")
        }
        if self._clock is None:  # in the sanity check before training
            return scores
        batches = max(trainer.num_training_batches, *trainer.num_val_batches, 0)
        description = max(len(_epoch(trainer)), len(self.validation_description))
        used = description + _BAR_WIDTH + len(f"{batches}/{batches}") + len("   ")
        width = self._console.width if self._console is not None else _MIN_WIDTH
        return fitting({**_training_status(trainer, pl_module, self._clock), **scores}, width - used)

    def configure_columns(self, trainer: L.Trainer) -> list[Any]:
        theme = self.theme
        return [
            TextColumn("{task.description}"),
            CustomBarColumn(
                bar_width=_BAR_WIDTH, complete_style=theme.progress_bar, finished_style=theme.progress_bar_finished
            ),
            TextColumn("{task.completed:.0f}/{task.total:.0f}"),
        ]


def fitting(status: dict[str, str], width: int) -> dict[str, str]:
    """Return what of `status` fits into `width` characters as `name: value name: value`, the most important parts."""
    kept = dict(status)
    others = [name for name in status if not name.startswith(("mIoU", *_LEFT_OUT_LAST))]
    for name in (*others, *_LEFT_OUT_LAST):
        if len(" ".join(f"{name}: {value}" for name, value in kept.items())) <= width:
            break
        kept.pop(name, None)
    return kept


def _score_name(key: str, pl_module: SegmentationModule) -> str:
    name = key.rpartition("/")[2]
    return f"{name} of {part}" if name == "mIoU" and (part := pl_module.scored_part) else name


class Lines(ProgressBar):
    """Plain progress lines without escape codes or carriage returns."""

    def __init__(self, every_seconds: float) -> None:
        super().__init__()
        self.every_seconds = every_seconds
        self._enabled, self._last_print = True, 0.0

    def disable(self) -> None:
        self._enabled = False

    def enable(self) -> None:
        self._enabled = True

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._clock, self._last_print = _Clock(trainer), time.monotonic()

    def on_train_batch_end(  # type: ignore[override]
        self, trainer: L.Trainer, pl_module: SegmentationModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if batch_idx + 1 == trainer.num_training_batches or self._due():
            status = _training_status(trainer, pl_module, self._clock)
            self._print(_epoch(trainer), *(f"{name} {value}" for name, value in status.items()))

    def on_validation_end(self, trainer: L.Trainer, pl_module: SegmentationModule) -> None:  # type: ignore[override]
        if not trainer.sanity_checking:
            scores = pl_module.scores
            accuracy = f"pixel accuracy {100 * scores.pixel_accuracy:.2f}"
            mean_iou = f"mIoU {100 * scores.mean_iou:.2f}"
            part = [pl_module.scored_part] if pl_module.scored_part else []
            self._print("Validation", f"step {trainer.global_step}", mean_iou, accuracy, *part)

    def on_validation_batch_end(self, trainer: L.Trainer, *args: Any) -> None:
        if not trainer.sanity_checking and self._due():
            self._print("Validation", f"image {args[3] + 1}/{trainer.num_val_batches[0]}")

    def on_test_batch_end(self, trainer: L.Trainer, *args: Any) -> None:
        if self._due():
            self._print("Scoring", f"image {args[3] + 1}/{trainer.num_test_batches[0]}")

    def _due(self) -> bool:
        return time.monotonic() - self._last_print >= self.every_seconds

    def _print(self, *parts: str) -> None:
        if self._enabled:
            print(", ".join(parts), flush=True)
        self._last_print = time.monotonic()


def _epoch(trainer: L.Trainer) -> str:
    limited = trainer.max_epochs is not None and trainer.max_epochs > 0
    return f"Epoch {trainer.current_epoch + 1}" + (f"/{trainer.max_epochs}" if limited else "")
