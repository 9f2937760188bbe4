"""Workers need shared memory; if there is too little, one line says so before they start."""

from __future__ import annotations

import os
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import DictConfig
from torch.utils.data import DataLoader, Dataset

from fastfcn_pl.config import build
from fastfcn_pl.core.types import UserError
from fastfcn_pl.data import shared_memory
from fastfcn_pl.data.datamodule import _init_loader_worker
from fastfcn_pl.data.io import parallel
from fastfcn_pl.data.io.parallel import parallel_map
from fastfcn_pl.data.shared_memory import worker_count
from fastfcn_pl.tools.train import train
from tests.conftest import TINY
from tests.fakes.folder import write_folder

MIB = 1 << 20


class Pictures(Dataset[Any]):
    """Samples of 1 MiB, drawn from the global generators."""

    def __getitem__(self, key: object) -> dict[str, Any]:
        random.random(), np.random.rand(), torch.rand(1)  # noqa: NPY002
        return {"image": torch.zeros(MIB, dtype=torch.uint8), "index": 0}


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, bool], None]:
    """Return a function that sets the free bytes of shared memory and whether it is writable."""

    def set_to(size: int, writable: bool = True) -> None:
        status = os.statvfs_result((4096, 4096, 1 << 20, size // 4096, size // 4096, 0, 0, 0, 0, 255))
        monkeypatch.setattr(parallel.os, "statvfs", lambda _: status)
        monkeypatch.setattr(parallel.os, "access", lambda *_: writable)

    return set_to


def _count(wanted: int | None, said: list[str] | None = None) -> int:
    return worker_count(
        wanted, 1, Pictures(), batch_size=4, prefetch=2, warn=[].append if said is None else said.append
    )


def test_the_number_of_workers_is_kept_if_batches_fit(
    free: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_memory, "available_cores", lambda: 3)
    for size in (100 * MIB, 1 << 40):
        free(size)
        assert (_count(0), _count(2), _count(None)) == (0, 2, 3)


def test_too_little_shared_memory_raises_one_line_with_what_fits(free: Callable[..., None]) -> None:
    free(29 * MIB)  # 4 MiB on the way to the device, and three times two batches
    assert _count(3) == 3
    line = (
        r"^/dev/shm has only 29\.0 MiB free, too little for 2 batches of 4\.0 MiB from each of 4 workers: give the "
        r"container more \(docker run --shm-size=8g, or --ipc=host\), or set data\.num_workers=3$"
    )
    with pytest.raises(UserError, match=line):
        _count(4)


def test_the_automatic_number_is_reduced_to_what_fits(
    free: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_memory, "available_cores", lambda: 8)
    free(21 * MIB)
    said: list[str] = []
    assert _count(None, said) == 2
    assert "from 8 workers: using 2; for more, give the container more (docker run --shm-size=8g" in said[0]
    free(1 << 16)
    with pytest.raises(UserError, match=r"--shm-size.* or set data\.num_workers=0$"):
        _count(None)


def test_shared_memory_that_is_not_writable_raises_one_line(free: Callable[..., None]) -> None:
    free(1 << 40, False)
    assert _count(0) == 0
    with pytest.raises(UserError, match=r"^/dev/shm, .* is not writable: .*--shm-size.* data\.num_workers=0$"):
        _count(2)
    with pytest.raises(UserError, match=r"^/dev/shm, .* is not writable: .*--shm-size.* num_workers=0$"):
        next(parallel_map(str, [1], 2))
    free(1 << 16)
    with pytest.raises(UserError, match=r"^/dev/shm has only 65536 bytes free, too few for workers: .* num_workers=0$"):
        next(parallel_map(str, [1], 2))
    assert list(parallel_map(str, [1], 0)) == ["1"]


def test_measuring_a_batch_does_not_advance_the_generators(free: Callable[..., None]) -> None:
    def drawn() -> tuple[float, float, float]:
        return random.random(), float(np.random.rand()), float(torch.rand(1))  # noqa: NPY002

    free(100 * MIB)
    found = []
    for measure in (False, True):
        random.seed(1), np.random.seed(1), torch.manual_seed(1)  # noqa: NPY002
        if measure:
            _count(2)
        found.append(drawn())
    assert found[0] == found[1]


@pytest.mark.slow
def test_training_reports_it_before_it_starts(
    free: Callable[..., None], tmp_path: Path, make_config: Callable[..., DictConfig]
) -> None:
    root = write_folder(tmp_path / "mine", train=2, val=1)
    keys = ["data=folder", f"data.root={root}", "data.classes=[a,b,c]", "data.batch_size=2", "data.num_workers=2"]
    free(1 << 16)
    data = build.datamodule(make_config(*keys))
    for loader in (data.train_dataloader, data.val_dataloader):
        with pytest.raises(UserError, match=r"--shm-size.* data\.num_workers=0$"):
            loader()
    with pytest.raises(UserError, match=r"--shm-size.* data\.num_workers=0$"):
        train(make_config(*TINY, *keys, "trainer.max_steps=1", "callbacks.cost.repeats=0"))


class Unsendable(Dataset[Any]):
    """Samples that a worker cannot send."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Unsendable:
        return self

    def __reduce__(self) -> str:
        raise self.error


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            RuntimeError("unable to write to file </torch_12_3>: No space left on device (28)"),
            "Bus error.*shared memory",
        ),
        (
            RuntimeError("unable to open shared memory object </torch_12_3> in read-write mode"),
            "Bus error.*shared memo",
        ),
        (TypeError("cannot pickle"), "exited unexpectedly"),
    ],
)
def test_a_batch_that_cannot_be_sent_ends_the_loader(
    error: Exception, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the loader would wait for the batch forever."""
    monkeypatch.setattr("torch.utils.data.dataloader._utils.MP_STATUS_CHECK_INTERVAL", 0.2)
    loader = DataLoader(Unsendable(error), None, num_workers=1, worker_init_fn=_init_loader_worker, timeout=60)
    with pytest.raises(RuntimeError) as caught:
        list(loader)
    assert re.search(words, f"{caught.value} {caught.value.__cause__}"), caught.value
