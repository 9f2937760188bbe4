"""Shared memory that workers pass batches through; containers often have little of it."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from multiprocessing import queues
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from fastfcn_pl.core.types import UserError
from fastfcn_pl.data.io.parallel import LOCK_BYTES, MORE_SHARED_MEMORY, available_cores, free_shared_memory

_PLENTY = 4 << 30
"""Bytes of free shared memory above which the size of batches is not checked."""


def worker_count(
    requested: int | None,
    devices: int,
    dataset: Dataset[Any],
    batch_size: int,
    prefetch: int,
    warn: Callable[[str], None],
) -> int:
    """Return the number of loader workers: `requested`, or else the cores for each device, at most 8.

    Each worker keeps `prefetch` batches in shared memory and dies silently if they do not fit. Without a request the
    number is reduced to what fits, with a warning. Raises UserError if the requested number, or even one, does not.
    """
    workers = min(8, available_cores() // devices) if requested is None else requested
    if workers == 0 or (free := free_shared_memory("data.num_workers=0")) is None or free > _PLENTY:
        return workers
    size = _batch_bytes(dataset, batch_size)
    most = max(0, ((free - LOCK_BYTES) // size - 1) // prefetch)  # one more batch is on its way to the device
    if workers <= most:
        return workers
    cause = f"/dev/shm has only {_format_bytes(free)} free, too little for {prefetch} batches of {_format_bytes(size)}"
    if requested is None and most:
        warn(f"{cause} from {workers} workers: using {most}; for more, {MORE_SHARED_MEMORY}")
        return most
    raise UserError(f"{cause} from each of {workers} workers: {MORE_SHARED_MEMORY}, or set data.num_workers={most}")


def _batch_bytes(dataset: Dataset[Any], batch_size: int) -> int:
    """Return the size of a batch from its first sample, without advancing global random generators."""
    states = random.getstate(), np.random.get_state()  # noqa: NPY002  # user transforms may draw from it
    with torch.random.fork_rng(devices=[]):
        sample = dataset[0, 0]
    random.setstate(states[0])
    np.random.set_state(states[1])  # noqa: NPY002
    return max(1, batch_size * sum(value.nbytes for value in sample.values() if isinstance(value, Tensor)))


def _format_bytes(size: int) -> str:
    return f"{size / 2**20:,.1f} MiB" if size >= 2**20 else f"{size / 2**10:,.0f} KiB"


def exit_on_lost_batch() -> None:
    """Make this worker exit if it cannot send a batch, for which the main process would wait forever.

    It exits by SIGBUS, like a worker that runs out of shared memory during a write.
    """
    report_error = queues.Queue._on_queue_feeder_error  # type: ignore[attr-defined]

    def exit_worker(error: Exception, batch: object) -> None:
        if "/torch_" in str(error):  # the name of a shared memory block
            os.kill(os.getpid(), signal.SIGBUS)
            time.sleep(5)  # another thread may receive the signal
        report_error(error, batch)
        os._exit(1)

    queues.Queue._on_queue_feeder_error = staticmethod(exit_worker)  # type: ignore[attr-defined]
