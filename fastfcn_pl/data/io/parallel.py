"""Parallel map over processes."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import TypeVar

from fastfcn_pl.core.types import UserError

Task = TypeVar("Task")
Result = TypeVar("Result")
_TASKS_PER_WORKER = 4
"""Tasks submitted ahead for each process; the limit keeps memory flat for long inputs."""
LOCK_BYTES = 1 << 18
"""Shared memory that is enough for the locks between processes."""
_SHARED_MEMORY = Path("/dev/shm")
MORE_SHARED_MEMORY = "give the container more (docker run --shm-size=8g, or --ipc=host)"


def available_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def free_shared_memory(alternative: str) -> int | None:
    """Return the free bytes of shared memory; None if there is no limit or it is unknown.

    Raises UserError if shared memory is not writable; the message names the setting that is the `alternative`.
    """
    if sys.platform != "linux":
        return None
    if not os.access(_SHARED_MEMORY, os.W_OK):
        raise UserError(
            f"{_SHARED_MEMORY}, through which processes exchange data, is not writable: mount it writable "
            f"(docker run --shm-size=8g, or --ipc=host), or set {alternative}"
        )
    status = os.statvfs(_SHARED_MEMORY)
    return status.f_bavail * status.f_frsize if status.f_blocks else None


def parallel_map(
    function: Callable[[Task], Result], tasks: Iterable[Task], num_workers: int | None
) -> Iterator[Result]:
    """Yield `function(task)` for each task, in order, computed by `num_workers` processes.

    None starts one process for each core; 0 computes in this process.
    """
    if num_workers is None:
        num_workers = available_cores()
    if num_workers < 0:
        raise UserError(f"num_workers={num_workers}: give 0 for none, or null for one for each core")
    if num_workers == 0:
        yield from map(function, tasks)
        return
    if (free := free_shared_memory("num_workers=0")) is not None and free < LOCK_BYTES:
        raise UserError(
            f"/dev/shm has only {free} bytes free, too few for workers: {MORE_SHARED_MEMORY}, or set num_workers=0"
        )
    # Spawn, since forking is unsafe with torch's threads. Ctrl-C is for this process, which then ends the workers.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(num_workers, context, signal.signal, (signal.SIGINT, signal.SIG_IGN))
    pending: deque[Future[Result]] = deque()
    try:
        for task in tasks:
            pending.append(pool.submit(function, task))
            if len(pending) == _TASKS_PER_WORKER * num_workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    except BrokenProcessPool as error:
        raise UserError(
            "a worker process was killed, probably because memory ran out: run again with "
            f"num_workers={num_workers // 2}"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)
