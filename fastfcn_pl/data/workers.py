"""Worker processes: they outlive no signal's sender's patience, and never the process that they work for."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import re
import signal
import sys
import threading
import traceback
from contextlib import suppress
from multiprocessing import synchronize

from fastfcn_pl.data.io.parallel import MORE_SHARED_MEMORY

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)
"""Signals that tell a run to end; SIGUSR1 is a cluster's."""
_PR_SET_PDEATHSIG = 1
_KILLED = re.compile(
    r"DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\) (?:is killed by signal: ([\w ]+)|exited unexpectedly)"
)
_SHARED_MEMORY = re.compile(r"bus error|shared memory|/torch_\w+|\bshm\b|/dev/shm", re.IGNORECASE)


def begin_work() -> None:
    """Ignore the signals that end a run: the process that trains handles them, and saves a checkpoint first.

    A terminal and a cluster send them to the workers, too.
    """
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)
    end_with_parent()


def end_with_parent() -> None:
    """Have the kernel kill this process as soon as the one that started it has ended, however that ended."""
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    parent = multiprocessing.parent_process()
    if parent is not None and os.getppid() != parent.pid:  # it ended before
        os._exit(1)


def end_workers() -> None:
    """Kill the workers of this process: they ignore what else would end them, and may be stuck."""
    children = multiprocessing.active_children()
    in_main = threading.current_thread() is threading.main_thread()
    # torch's handler would raise an error of its own for each, wherever this process is by then.
    handler = signal.signal(signal.SIGCHLD, signal.SIG_DFL) if in_main else None
    for child in children:
        if child.pid is not None:
            with suppress(ProcessLookupError):
                os.kill(child.pid, signal.SIGKILL)  # loky's processes, which joblib starts, have no `kill`
    for child in children:
        child.join(1)
    if in_main:
        signal.signal(signal.SIGCHLD, handler or signal.SIG_DFL)


def loss_of_worker(error: BaseException) -> str | None:
    """Return in one line why workers could not begin, or were lost; None for another error."""
    said = [line for line in str(error).splitlines() if not line.startswith(" ")]  # others are of a traceback
    message = "\n".join(said) if isinstance(error, RuntimeError) else ""
    of_loader = "DataLoader worker" in message or "/torch_" in message
    if (of_loader and _SHARED_MEMORY.search(message)) or (isinstance(error, OSError) and _of_semaphore(error)):
        return (
            "/dev/shm, through which workers hand over their batches, is full or cannot be written: "
            f"{MORE_SHARED_MEMORY}, or set data.num_workers=0"
        )
    if killed := _KILLED.search(message):
        how = f"by signal {killed[2]}" if killed[2] else "from outside"
        return (
            f"a worker process that reads the data (pid {killed[1]}) was ended {how}, as happens if memory runs out: "
            "set data.num_workers or data.batch_size lower"
        )
    return None


def _of_semaphore(error: OSError) -> bool:
    """Tell whether a semaphore could not be made, which takes a file in /dev/shm."""
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and frames[-1].filename == synchronize.__file__
