"""The end of data workers of a run that fails."""

from __future__ import annotations

import os
import signal
from types import SimpleNamespace
from typing import Any

import pytest
from torch.utils.data import DataLoader

from fastfcn_pl.engine.error_messages import one_line
from fastfcn_pl.training.callbacks.end_workers import EndWorkers


@pytest.mark.parametrize("error", [ConnectionResetError(104, "Connection reset by peer"), EOFError()])
def test_a_worker_that_dies_while_it_hands_over_a_batch_is_one_line(error: Exception) -> None:
    batches = iter(DataLoader(range(1000), num_workers=1))  # type: ignore[arg-type, var-annotated]
    next(batches)
    worker = batches._workers[0]  # type: ignore[attr-defined]
    handler = signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch's raises an error here
    try:
        os.kill(worker.pid, signal.SIGKILL)
        rank: Any = SimpleNamespace(is_global_zero=False)
        EndWorkers().on_exception(rank, rank, error)
    finally:
        signal.signal(signal.SIGCHLD, handler)
    line = one_line(error)
    assert line is not None
    assert line.startswith(f"a data worker (pid {worker.pid}) was killed by signal Killed")


@pytest.mark.slow
def test_a_broken_connection_of_something_else_is_not_explained() -> None:
    error, rank = ConnectionResetError(104, "Connection reset by peer"), SimpleNamespace(is_global_zero=False)
    EndWorkers().on_exception(rank, rank, error)  # type: ignore[arg-type]
    assert not hasattr(error, "__notes__")
