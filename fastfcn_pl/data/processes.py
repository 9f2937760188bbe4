"""Work shared among processes, one to a core."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from fastfcn_pl.contracts import UserError

Task = TypeVar("Task")
Result = TypeVar("Result")
_WAITING = 4
"""Tasks to a process that are worked on or wait: memory stays flat, however many there are."""


def in_order(work: Callable[[Task], Result], tasks: Iterable[Task], num_workers: int | None) -> Iterator[Result]:
    """Yield what `work` returns for each of `tasks`, in their order.

    `num_workers` processes do it; None for as many as there are cores, 0 for none but this one.
    """
    if num_workers is None:
        num_workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if num_workers < 0:
        raise UserError(f"num_workers={num_workers}: use 0 for none, or null for as many as there are cores")
    if num_workers == 0:
        yield from map(work, tasks)
        return
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
