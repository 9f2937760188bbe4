"""Logging of GPU memory, on GPUs only."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from fastfcn_pl.training.callbacks.gpu_memory import GpuMemory


def _train(device: str, steps: int, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, float, dict[str, Any]]]:
    """Train for `steps`. Every second one is logged, and each takes one GiB more than the one before."""
    logged: list[tuple[str, float, dict[str, Any]]] = []
    peak = 0

    def reset(_: torch.device) -> None:
        nonlocal peak
        peak = 0

    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda _: peak)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", reset)
    trainer: Any = SimpleNamespace(log_every_n_steps=2, global_step=0)
    module: Any = SimpleNamespace(
        device=torch.device(device), log=lambda key, value, **how: logged.append((key, value, how))
    )
    for step in range(1, steps + 1):
        trainer.global_step, peak = step, max(peak, step * 2**30)
        GpuMemory().on_train_batch_end(trainer, module, None, {"image": torch.zeros(3, 1)}, step - 1)
    return logged


def test_the_most_since_the_last_log_of_the_fullest_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    logged = _train("cuda", 5, monkeypatch)
    assert [(key, value) for key, value, _ in logged] == [("train/gpu_memory_gib", 2.0), ("train/gpu_memory_gib", 4.0)]
    assert all((how["reduce_fx"], how["sync_dist"], how["batch_size"]) == ("max", True, 3) for *_, how in logged)


def test_a_cpu_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _train("cpu", 5, monkeypatch) == []
