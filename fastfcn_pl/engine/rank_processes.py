"""Processes of the ranks above 0: those that Lightning starts run the job of rank 0 instead of the command line."""

from __future__ import annotations

import os
from unittest.mock import patch

import lightning as L
from lightning.pytorch.strategies.launchers import subprocess_script

from fastfcn_pl.engine.frozen_job import FrozenJob


def start_with_frozen_job(trainer: L.Trainer) -> None:
    """Make the ranks that `trainer` will start find this process's frozen job in their environment.

    Lightning would compose the command line again in each of them. It does nothing if there is no frozen job, or if
    ranks start in another way.
    """
    job, launcher = FrozenJob.current, trainer.strategy.launcher
    if job is None or not isinstance(launcher, subprocess_script._SubprocessScriptLauncher):
        return
    start = launcher._call_children_scripts

    def command_and_folder(local_rank: int) -> tuple[list[str], str]:
        return job.command(), os.getcwd()

    def start_ranks() -> None:
        with job.in_environment(), patch.object(subprocess_script, "_hydra_subprocess_cmd", command_and_folder):
            start()

    launcher._call_children_scripts = start_ranks  # type: ignore[method-assign]
