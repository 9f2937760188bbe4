"""A run is told to end: by Ctrl-C, by its terminal that closes, or since the machine is about to be taken away."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from typing import Any, NoReturn

import lightning as L
import torch
import wandb
from lightning.fabric.plugins.environments import SLURMEnvironment
from lightning.pytorch.trainer.states import TrainerFn
from rich.console import Console

from fastfcn_pl.data.workers import end_workers
from fastfcn_pl.training.resume_command import goes_on_by

_SAME = 1.0
"""Seconds within which two signals are one."""


class Notice:
    """Whether a rank was told to end. Ranks agree on it between two steps: a signal may reach only one of them.

    Lightning's own handlers start a collective, or a save, wherever the signal happens to meet a rank, which may hang
    those that are inside of another one, and saves a state from the middle of a step.
    """

    def __init__(self, path: str) -> None:
        """`path` is that of the checkpoint that the run is saved in."""
        self.path = path
        self._heard, self._interrupted = 0, 0.0

    def listen(self, trainer: L.Trainer) -> None:
        """Take the place of Lightning's handlers, which `trainer` restores those before it from when it is done."""
        if threading.current_thread() is not threading.main_thread():
            return

        def hear(number: int, *_: Any) -> None:
            if number == signal.SIGINT:
                self._interrupt(trainer)
            self._heard = number
            if trainer.state.fn is not TrainerFn.FITTING:  # there is nothing to save
                end(trainer, number, self.path)

        for number in (signal.SIGTERM, *((signal.SIGUSR1,) if SLURMEnvironment.job_id() is not None else ())):
            signal.signal(number, hear)
        for number in (signal.SIGINT, signal.SIGHUP):  # which a shell's `&`, or nohup, may have had ignored
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, hear)
        # In place of Lightning's question at each batch, which asks rank 0 alone.
        trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None  # type: ignore[method-assign]

    def _interrupt(self, trainer: L.Trainer) -> None:
        """End at once if it is the second Ctrl-C, not the same that came by two ways, from a terminal and a sweep."""
        now, first = time.monotonic(), self._interrupted
        if not first:
            self._interrupted = now
            if trainer.is_global_zero and trainer.state.fn is TrainerFn.FITTING:
                print("\nCtrl-C: the run is being saved (again: ends at once)", file=sys.stderr, flush=True)
        elif now - first > _SAME:
            end_workers()
            Console(stderr=True).show_cursor()  # which a progress bar hides
            os._exit(128 + signal.SIGINT)

    def of_any_rank(self, trainer: L.Trainer) -> int:
        """Return the signal that a rank has heard, 0 for none. To be called by all ranks."""
        if trainer.world_size == 1:
            return self._heard
        heard = torch.tensor(self._heard, device=trainer.strategy.root_device)
        return int(trainer.strategy.reduce(heard, reduce_op="max"))


def end(trainer: L.Trainer, number: int, path: str) -> NoReturn:
    """End the run, which is saved in `path` if it has come to anything, after signal `number`.

    SIGUSR1 puts it into SLURM's queue again.
    """
    if trainer.is_global_zero:
        if wandb.run is not None:
            wandb.run.mark_preempting()
        print(f"{signal.Signals(number).name}: the run {goes_on_by(path, number)}", file=sys.stderr)
        if number == signal.SIGUSR1:
            _requeue()
    raise SystemExit(128 + number)


def _requeue() -> None:
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    job = f"{array}_{task}" if array else os.environ["SLURM_JOB_ID"]
    done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"scontrol requeue {job}: {done.stderr.strip()}: submit it again", file=sys.stderr)
