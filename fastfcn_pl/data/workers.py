"""Lifetime of worker processes: signals, exit with the parent, and the cause of a failure."""

from __future__ import annotations

import atexit
import ctypes
import multiprocessing.util
import os
import re
import signal
import sys
import threading
import traceback
import weakref
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing import synchronize
from multiprocessing.process import BaseProcess
from typing import Any

from fastfcn_pl.data.io.parallel import MORE_SHARED_MEMORY

TERMINATION_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)
"""Signals that end a run; SLURM sends SIGUSR1 before a time limit."""
_PR_SET_PDEATHSIG = 1
_KILLED = re.compile(
    r"DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\) (?:is killed by signal: ([\w ]+)|exited unexpectedly)"
)
_SHARED_MEMORY = re.compile(r"bus error|shared memory|/torch_\w+|\bshm\b|/dev/shm", re.IGNORECASE)
loader_iterators = weakref.WeakSet[Any]()
"""Iterators of `data.loader.Loader` that have workers."""


def init_worker() -> None:
    """Ignore termination signals, which terminals and clusters send to workers, too, and exit with the parent.

    The main process handles the signals and saves a checkpoint first.
    """
    for number in TERMINATION_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    exit_with_parent()


def exit_with_parent() -> None:
    """Have the kernel kill this process as soon as its parent exits for any reason."""
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    parent = multiprocessing.parent_process()
    if parent is not None and os.getppid() != parent.pid:  # the parent has exited already
        os._exit(1)


def kill_workers() -> None:
    """Kill the workers of this process, which ignore termination signals and may hang."""
    for iterator in list(loader_iterators):
        # A worker that dies inside of this event's lock keeps it, and torch, which sets the event, would wait for ever.
        iterator._workers_done_event = threading.Event()
    children = multiprocessing.active_children()
    in_main_thread = threading.current_thread() is threading.main_thread()
    # torch's handler would raise an error for each killed worker, at an arbitrary point.
    handler = signal.signal(signal.SIGCHLD, signal.SIG_DFL) if in_main_thread else None
    _kill(children)
    for child in children:
        child.join(1)
    if in_main_thread:
        signal.signal(signal.SIGCHLD, handler or signal.SIG_DFL)


def _kill_daemons() -> None:
    """Kill the workers that are left when the interpreter exits: they would ignore its SIGTERM, and it would wait."""
    _kill([child for child in multiprocessing.active_children() if child.daemon])


def _kill(processes: Sequence[BaseProcess]) -> None:
    for process in processes:
        if process.pid is not None:
            with suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)  # processes of loky (joblib) have no `kill`


atexit.register(_kill_daemons)  # after that of multiprocessing.util, so that it runs first


def explain_worker_failure(error: BaseException) -> str | None:
    """Return one line on why workers could not start or died; None for an unrelated error."""
    texts = [str(error)] if isinstance(error, RuntimeError) else getattr(error, "__notes__", [])  # see `EndWorkers`
    lines = [line for text in texts for line in text.splitlines()]
    message = "\n".join(line for line in lines if not line.startswith(" "))  # without the traceback
    from_loader = "DataLoader worker" in message or "/torch_" in message
    if (from_loader and _SHARED_MEMORY.search(message)) or (isinstance(error, OSError) and _is_semaphore_error(error)):
        return (
            "/dev/shm, through which workers pass batches, is full or not writable: "
            f"{MORE_SHARED_MEMORY}, or set data.num_workers=0"
        )
    if killed := _KILLED.search(message):
        cause = f"by signal {killed[2]}" if killed[2] else "from outside"
        return (
            f"a data worker (pid {killed[1]}) was killed {cause}, probably because memory ran out: "
            "lower data.num_workers or data.batch_size"
        )
    return None


def _is_semaphore_error(error: OSError) -> bool:
    """Return whether creating a semaphore failed, which needs a file in /dev/shm."""
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and frames[-1].filename == synchronize.__file__
