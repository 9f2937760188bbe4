"""The memory that workers hand batches over in, which containers have little of."""

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
from fastfcn_pl.data.io.parallel import LOCKS, MORE_SHARED_MEMORY, cores, shared_memory

_PLENTY = 4 << 30
"""Bytes of shared memory with which nobody needs to count."""


def worker_count(
    wanted: int | None,
    devices: int,
    dataset: Dataset[Any],
    batch_size: int,
    prefetch: int,
    warn: Callable[[str], None],
) -> int:
    """Return how many workers load data: as many as `wanted`, or, if that is None, as there are cores for a device.

    Each keeps `prefetch` batches in shared memory, which containers have little of: what is too large for it ends a
    worker without a word. Raises UserError where it does not take what is wanted.
    """
    workers = min(8, cores() // devices) if wanted is None else wanted
    if workers == 0 or (free := shared_memory("data.num_workers=0")) is None or free > _PLENTY:
        return workers
    size = _of_batch(dataset, batch_size)
    most = max(0, ((free - LOCKS) // size - 1) // prefetch)  # one more batch is on its way to the device
    if workers <= most:
        return workers
    cause = f"/dev/shm has {_bytes(free)} free, too little for {prefetch} batches of {_bytes(size)}"
    if wanted is None and most:
        warn(f"{cause} from {workers} workers: {most} load data ({MORE_SHARED_MEMORY} takes more)")
        return most
    raise UserError(f"{cause} from each of {workers} workers: {MORE_SHARED_MEMORY}, or set data.num_workers={most}")


def _of_batch(dataset: Dataset[Any], batch_size: int) -> int:
    """Return the size of a batch, by the first sample; transforms of one's own may draw from global generators."""
    states = random.getstate(), np.random.get_state()  # noqa: NPY002  # they may use it
    with torch.random.fork_rng(devices=[]):
        sample = dataset[0, 0]
    random.setstate(states[0])
    np.random.set_state(states[1])  # noqa: NPY002
    return max(1, batch_size * sum(value.nbytes for value in sample.values() if isinstance(value, Tensor)))


def _bytes(size: int) -> str:
    return f"{size / 2**20:,.1f} MiB" if size >= 2**20 else f"{size / 2**10:,.0f} KiB"


def end_when_a_batch_is_lost() -> None:
    """Have this worker end when it cannot send a batch, which would otherwise be waited for without an end.

    It ends as one that meets full shared memory while it writes there: by SIGBUS.
    """
    says = queues.Queue._on_queue_feeder_error  # type: ignore[attr-defined]

    def end(error: Exception, batch: object) -> None:
        if "/torch_" in str(error):  # the name of a piece of shared memory
            os.kill(os.getpid(), signal.SIGBUS)
            time.sleep(5)  # another thread may be the one that gets it
        says(error, batch)
        os._exit(1)

    queues.Queue._on_queue_feeder_error = staticmethod(end)  # type: ignore[attr-defined]
