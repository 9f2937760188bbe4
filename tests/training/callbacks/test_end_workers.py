"""The end of data workers of a run that fails."""

from __future__ import annotations

import os
import signal
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from fastfcn_pl.data.loader import Loader
from fastfcn_pl.data.workers import kill_workers
from fastfcn_pl.engine.error_messages import one_line
from fastfcn_pl.training.callbacks.end_workers import EndWorkers


@pytest.mark.parametrize("error", [ConnectionResetError(104, "Connection reset by peer"), EOFError()])
def test_a_worker_that_dies_while_it_hands_over_a_batch_is_one_line(error: Exception) -> None:
    batches = iter(Loader(range(1000), num_workers=1))  # type: ignore[arg-type, var-annotated]
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


@pytest.mark.parametrize("persistent", [False, True])
def test_a_lock_that_a_killed_worker_held_is_not_waited_for(persistent: bool) -> None:
    loader: Loader[int] = Loader(range(1000), num_workers=1, persistent_workers=persistent)  # type: ignore[arg-type]
    batches = iter(loader)
    next(batches)
    batches._workers_done_event._cond.acquire()  # as a worker does after each batch; it can be killed meanwhile
    kill_workers()
    end = threading.Thread(target=batches._shutdown_workers, daemon=True)
    end.start()
    end.join(20)
    assert not end.is_alive()
