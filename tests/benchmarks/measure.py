"""Measurements of benchmarks: times of contenders that take turns, and memory in a new process."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from statistics import median

import torch

from fastfcn_pl.core.provenance import environment

Work = Callable[[], object]


def device() -> torch.device:
    """Return where the networks are measured: on a GPU where there is one that CUDA_VISIBLE_DEVICES does not hide."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def medians(contenders: dict[str, Work], rounds: int) -> dict[str, float]:
    """Return seconds on the wall of each: medians over rounds in which they take turns, after some to warm up.

    On a GPU a round is ten times as many calls of each in turn, of which only the last is waited for.
    """
    calls, warm_up = (10, 2) if device().type == "cuda" else (1, 1)
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(warm_up + rounds):
        for name, work in contenders.items():
            start = time.perf_counter()
            for _ in range(calls):
                work()
            if device().type == "cuda":
                torch.cuda.synchronize()
            if turn >= warm_up:
                seconds[name].append((time.perf_counter() - start) / calls)
    return {name: median(of) for name, of in seconds.items()}


def turns(one: Work, other: Work, seconds: float) -> Iterator[tuple[float, float]]:
    """Yield what each took in turns that alternate in order, for `seconds` or three pairs at least, after a warm-up.

    A turn is as many calls as take a twentieth of a second.
    """
    pair = one, other
    spent = [_calls(work, 1) for work in (*pair, *pair)]
    calls = max(1, round(0.05 / min(spent[2:])))
    begun, turn = time.perf_counter(), 0
    while turn < 3 or time.perf_counter() - begun < seconds:
        order = (0, 1) if turn % 2 else (1, 0)
        found = {i: _calls(pair[i], calls) for i in order}
        yield found[0], found[1]
        turn += 1


def _calls(work: Work, count: int) -> float:
    """Return the seconds of a call, as the mean of `count`."""
    start = time.perf_counter()
    for _ in range(count):
        work()
    if device().type == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - start) / count


def peak_mib(prepare: Callable[..., Work], *args: object) -> float:
    """Return the most MiB that `prepare(*args)()` takes beyond what there was before that call.

    On a GPU that is what torch has allocated on it, on a CPU resident memory, which Linux alone tells. `prepare` runs
    in the new process, too.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_peak_mib, prepare, *args).result()


def _peak_mib(prepare: Callable[..., Work], *args: object) -> float:
    work = prepare(*args)
    if device().type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        allocated = torch.cuda.memory_allocated()
        work()
        return (torch.cuda.max_memory_allocated() - allocated) / 2**20
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
    before = _resident("VmRSS")
    work()
    return (_resident("VmHWM") - before) / 2**10


def _resident(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


def machine() -> str:
    """Return what figures were measured on, in a line."""
    threads = f"{torch.get_num_threads()} threads"
    where = f"{processor()}, {threads}" if device().type == "cpu" else processor()
    return f"{where}, Python {platform.python_version()}, torch {torch.__version__}."


def processor() -> str:
    """Return the name of what networks are measured on."""
    return torch.cuda.get_device_name() if device().type == "cuda" else environment()["processor"]


def difference(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Return the largest difference, as a share of the largest number."""
    return ((found - expected).abs().max() / expected.abs().max()).item()
