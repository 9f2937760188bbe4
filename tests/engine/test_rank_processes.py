"""Ranks that Lightning starts run the frozen job of rank 0."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from unittest.mock import patch

import lightning as L
import pytest
from hydra.core.hydra_config import HydraConfig

from fastfcn_pl.engine.frozen_job import FrozenJob
from fastfcn_pl.engine.rank_processes import start_with_frozen_job


def _commands_of_ranks(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[str], dict[str, str]]]:
    """Return the command and the environment of each rank above 0 that a trainer of three would start."""
    started: list[tuple[list[str], dict[str, str]]] = []
    monkeypatch.setattr(subprocess, "Popen", lambda command, env, cwd: started.append((command, env)))
    monkeypatch.setattr(HydraConfig, "initialized", lambda: True)
    with patch.dict(os.environ):
        trainer = L.Trainer(accelerator="cpu", devices=3, strategy="ddp", logger=False, enable_checkpointing=False)
        start_with_frozen_job(trainer)
        trainer.strategy.launcher._call_children_scripts()  # type: ignore[union-attr]
    return started


def test_ranks_find_the_frozen_job_in_their_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = FrozenJob("fastfcn_pl.train", "the job's configuration", tmp_path)
    monkeypatch.setattr(FrozenJob, "current", job)
    ranks = _commands_of_ranks(monkeypatch)
    assert [command for command, _ in ranks] == [job.command()] * 2
    assert [env["LOCAL_RANK"] for _, env in ranks] == ["1", "2"]
    assert all(job.environment.items() <= env.items() for _, env in ranks)
    assert not job.environment.keys() & os.environ.keys(), "processes that are started later do not get it"


def test_without_a_frozen_job_ranks_start_as_lightning_starts_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FrozenJob, "current", None)
    monkeypatch.setattr(
        "lightning.pytorch.strategies.launchers.subprocess_script._hydra_subprocess_cmd",
        lambda local_rank: ([f"Lightning's rank {local_rank}"], ""),
    )
    assert [command for command, _ in _commands_of_ranks(monkeypatch)] == [
        ["Lightning's rank 1"],
        ["Lightning's rank 2"],
    ]
