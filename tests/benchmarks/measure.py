"""How benchmarks measure: contenders that take turns, and the memory of what runs in a process of its own."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from statistics import median

import torch

from fastfcn_pl.provenance import environment

Work = Callable[[], object]


def medians(contenders: dict[str, Work], rounds: int) -> dict[str, float]:
    """Return seconds on the wall of each: medians over rounds in which they take turns, after one to warm up."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(rounds + 1):
        for name, work in contenders.items():
            start = time.perf_counter()
            work()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if turn:
                seconds[name].append(time.perf_counter() - start)
    return {name: median(of) for name, of in seconds.items()}


def peak_mib(prepare: Callable[..., Work], *args: object) -> float:
    """Return the most MiB of resident memory that `prepare(*args)()` takes beyond what there was before that call.

    `prepare` runs in the new process, too. Linux alone tells.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_peak_mib, prepare, *args).result()


def _peak_mib(prepare: Callable[..., Work], *args: object) -> float:
    work = prepare(*args)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
    before = _resident("VmRSS")
    work()
    return (_resident("VmHWM") - before) / 2**10


def _resident(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


def machine() -> str:
    """Return what figures were measured on, in a line."""
    where = torch.cuda.get_device_name() if torch.cuda.is_available() else environment()["processor"]
    return f"{where}, {torch.get_num_threads()} threads, Python {platform.python_version()}, torch {torch.__version__}."


def difference(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Return the largest difference, as a share of the largest number."""
    return ((found - expected).abs().max() / expected.abs().max()).item()
