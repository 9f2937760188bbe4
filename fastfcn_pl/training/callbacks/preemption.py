"""Stop requests: Ctrl-C, a closed terminal, or preemption by the cluster."""

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

from fastfcn_pl.data.workers import kill_workers
from fastfcn_pl.training.resume_command import how_to_resume

_DUPLICATE_SECONDS = 1.0
"""A second SIGINT within this time is the same Ctrl-C, sent by the terminal and by the parent process of a sweep."""


class StopRequest:
    """Records a signal that asks the run to stop. Ranks agree on it between two steps.

    A signal may reach one rank only, or ranks at different points of a step. Lightning's own handlers start a
    collective or a save right away. That can deadlock with a collective of other ranks, and it saves a state from the
    middle of a step.
    """

    def __init__(self, path: str) -> None:
        """Take the `path` of the checkpoint that the run is saved to."""
        self.path = path
        self._received, self._interrupted_at = 0, 0.0

    def listen(self, trainer: L.Trainer) -> None:
        """Replace Lightning's signal handlers. When `trainer` is done, it restores those that preceded its own."""
        if threading.current_thread() is not threading.main_thread():
            return

        def handle(number: int, *_: Any) -> None:
            if number == signal.SIGINT:
                self._interrupt(trainer)
            self._received = number
            if trainer.state.fn is not TrainerFn.FITTING:  # there is nothing to save
                stop_run(trainer, number, self.path)

        for number in (signal.SIGTERM, *((signal.SIGUSR1,) if SLURMEnvironment.job_id() is not None else ())):
            signal.signal(number, handle)
        for number in (signal.SIGINT, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:  # ignored after a shell's `&`, or under nohup
                signal.signal(number, handle)
        # Lightning asks rank 0 alone, before each batch.
        trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None  # type: ignore[method-assign]

    def _interrupt(self, trainer: L.Trainer) -> None:
        """Announce the save on the first Ctrl-C, and end the process at once on the second."""
        now = time.monotonic()
        if not self._interrupted_at:
            self._interrupted_at = now
            if trainer.is_global_zero and trainer.state.fn is TrainerFn.FITTING:
                message = "\nCtrl-C: saving the run (press again to end without saving)"
                print(message, file=sys.stderr, flush=True)
        elif now - self._interrupted_at > _DUPLICATE_SECONDS:
            kill_workers()
            Console(stderr=True).show_cursor()  # hidden by a progress bar
            os._exit(128 + signal.SIGINT)

    def on_any_rank(self, trainer: L.Trainer) -> int:
        """Return the signal that any rank received, or 0. This is a collective: all ranks must call it."""
        if trainer.world_size == 1:
            return self._received
        received = torch.tensor(self._received, device=trainer.strategy.root_device)
        return int(trainer.strategy.reduce(received, reduce_op="max"))


def stop_run(trainer: L.Trainer, number: int, path: str) -> NoReturn:
    """Exit after signal `number` and print how to resume from `path`, if it exists. SIGUSR1 requeues the SLURM job."""
    if trainer.is_global_zero:
        if wandb.run is not None:
            wandb.run.mark_preempting()
        print(
            f"{signal.Signals(number).name}: the run {how_to_resume(path, number, trainer.global_step)}",
            file=sys.stderr,
        )
        if number == signal.SIGUSR1:
            _requeue()
    raise SystemExit(128 + number)


def _requeue() -> None:
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    job = f"{array}_{task}" if array else os.environ["SLURM_JOB_ID"]
    result = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True, check=False)
    if result.returncode:
        print(f"scontrol requeue {job} failed ({result.stderr.strip()}): submit the job again", file=sys.stderr)
