"""Work shared among processes, one to a core."""

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
_WAITING = 4
"""Tasks to a process that are worked on or wait: memory stays flat, however many there are."""
LOCKS = 1 << 18
"""Bytes of shared memory that are enough for the locks between processes."""
_SHARED_MEMORY = Path("/dev/shm")
MORE_SHARED_MEMORY = "give the container more (docker run --shm-size=8g, or --ipc=host)"


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def shared_memory(without: str) -> int | None:
    """Return how many bytes of shared memory are free; None where there is no limit, or none that is known.

    Raises UserError where there is none to write to, with the key that does `without`.
    """
    if sys.platform != "linux":
        return None
    if not os.access(_SHARED_MEMORY, os.W_OK):
        raise UserError(
            f"{_SHARED_MEMORY}, the shared memory that processes hand data over in, cannot be written to: mount it "
            f"writable (docker run --shm-size=8g, or --ipc=host), or set {without}"
        )
    status = os.statvfs(_SHARED_MEMORY)
    return status.f_bavail * status.f_frsize if status.f_blocks else None


def in_order(work: Callable[[Task], Result], tasks: Iterable[Task], num_workers: int | None) -> Iterator[Result]:
    """Yield what `work` returns for each of `tasks`, in their order.

    `num_workers` processes do it; None for as many as there are cores, 0 for none but this one.
    """
    if num_workers is None:
        num_workers = cores()
    if num_workers < 0:
        raise UserError(f"num_workers={num_workers}: use 0 for none, or null for as many as there are cores")
    if num_workers == 0:
        yield from map(work, tasks)
        return
    if (free := shared_memory("num_workers=0")) is not None and free < LOCKS:
        raise UserError(
            f"/dev/shm has {free} bytes free, too few for processes: {MORE_SHARED_MEMORY}, or num_workers=0"
        )
    # Spawned, since torch has threads by now; Ctrl-C is for this process, which then ends the others.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(num_workers, context, signal.signal, (signal.SIGINT, signal.SIG_IGN))
    waiting: deque[Future[Result]] = deque()
    try:
        for task in tasks:
            waiting.append(pool.submit(work, task))
            if len(waiting) == _WAITING * num_workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool as error:
        raise UserError(
            "a worker process was killed, as happens where memory runs out: run again, which goes "
            f"on where it can, with num_workers={num_workers // 2}"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)
