"""Writing label maps, one PNG each, on every core; what is there already is not done again."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image

from fastfcn_pl.contracts import UserError
from fastfcn_pl.data.sources.progress import bar
from fastfcn_pl.staging import staged

Origin = TypeVar("Origin")


def write_all(
    read: Callable[[Origin], np.ndarray], tasks: Sequence[tuple[Origin, Path]], num_workers: int | None
) -> None:
    """Write what `read` returns for each origin, ids `(H, W)` of 8 bits, to the path beside it, where that is missing.

    `num_workers` processes do it; None for as many as there are cores, 0 for none but this one.
    """
    lacking = [task for task in tasks if not task[1].exists()]
    if num_workers is None:
        num_workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    write, workers = partial(_write, read), min(num_workers, len(lacking))
    with bar("converting labels", of_bytes=False) as update:
        update(len(tasks) - len(lacking), len(tasks))
        if workers == 0:
            for i, task in enumerate(lacking):
                write(task)
                update(len(tasks) - len(lacking) + i + 1, len(tasks))
            return
        # Spawned, since torch has threads by now; Ctrl-C is for this process, which then ends the others.
        context = multiprocessing.get_context("spawn")
        pool = ProcessPoolExecutor(workers, context, signal.signal, (signal.SIGINT, signal.SIG_IGN))
        try:
            for i, _ in enumerate(pool.map(write, lacking, chunksize=8)):
                update(len(tasks) - len(lacking) + i + 1, len(tasks))
        except BrokenProcessPool as error:
            raise UserError(
                "a process that converts labels was killed, as happens where memory runs out: run again to go on, with "
                f"num_workers={workers // 2}"
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


def _write(read: Callable[[Origin], np.ndarray], task: tuple[Origin, Path]) -> None:
    origin, path = task
    ids = read(origin)
    with staged(path) as hidden:
        Image.fromarray(ids.astype(np.uint8, casting="safe")).save(hidden, format="PNG")


def write_list(names: Sequence[str], path: Path) -> None:
    """Write the names of a split, one a line."""
    with staged(path) as hidden:
        hidden.write_text("".join(f"{name}\n" for name in names))


def read_list(path: Path) -> list[str]:
    """Return the names of a split; raises UserError where its list is missing."""
    if not path.is_file():
        raise UserError(f"{path} is missing: remove the folder {path.parent.name} and run again, which unpacks it anew")
    return path.read_text().split()
