"""Sweeps: each job has its own ranks with any launcher, and all jobs are in one table."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fastfcn_pl.engine import sweep
from tests.conftest import TINY
from tests.fakes.camvid import write_camvid
from tests.support.grids import sample
from tests.support.processes import start, wait
from tests.support.wandb_file import of_kind

Command = Callable[..., subprocess.CompletedProcess[str]]
SMALL = [*TINY, "data.train_images=8", "data.val_images=2", "data.size=64", "data.num_workers=0"]
SMALL += ["data.batch_size=2", "trainer.max_epochs=1", "~callbacks.cost", "~callbacks.progress"]


def _jobs(tmp_path: Path) -> list[dict[str, str]]:
    (file,) = tmp_path.glob("runs/train/*/sweep.csv")
    assert file.with_suffix(".md").read_text().count("\n") == 2 + file.read_text().count("\n") - 1
    with file.open(newline="") as content:
        return list(csv.DictReader(content))


def _launched_by(launcher: str) -> list[str]:
    """Return the overrides for a launcher; skip the test if it is not installed."""
    if launcher != "basic":
        pytest.importorskip(f"hydra_plugins.hydra_{launcher.removesuffix('_local')}_launcher")
    return [f"hydra/launcher={launcher}", *(["hydra.launcher.n_jobs=2"] if launcher == "joblib" else [])]


@pytest.mark.slow
@pytest.mark.parametrize("launcher", sample(["basic", "joblib", "submitit_local"], "basic"))
def test_a_sweep_runs_its_jobs_and_says_which_failed(launcher: str, command: Command, tmp_path: Path) -> None:
    extra = _launched_by(launcher)
    small = [override for override in SMALL if override != "data.batch_size=2"]
    done = command("train", "-m", *small, "data.batch_size=2,100,4", *extra, fresh=launcher != "basic")
    assert done.returncode == 1
    assert [job["status"].partition(":")[0] for job in _jobs(tmp_path)] == ["done", "failed", "done"], done.stderr
    assert "fewer than data.batch_size=100" in _jobs(tmp_path)[1]["status"]
    (sweep,) = (tmp_path / "runs" / "train").iterdir()
    assert sorted(path.parent.name for path in sweep.glob("*/results.json")) == ["0", "2"]
    said = done.stderr + "".join(log.read_text() for log in sweep.glob(".submitit/*/*.err"))
    assert "error: job 1 (" in said
    assert "Traceback" not in said


@pytest.mark.slow
@pytest.mark.parametrize(
    ("launcher", "devices"),
    [
        ("basic", "2"),
        pytest.param("basic", "1,2", marks=pytest.mark.exhaustive),
        pytest.param("submitit_local", "2,1", marks=pytest.mark.exhaustive),
        *(pytest.param("basic", d, marks=pytest.mark.exhaustive) for d in ("2,1", "2,2")),
        *(pytest.param("joblib", d, marks=pytest.mark.exhaustive) for d in ("1,2", "2,1")),
        pytest.param("ray", "1,2", marks=pytest.mark.exhaustive),
    ],
)
def test_each_job_of_a_sweep_has_its_own_ranks(launcher: str, devices: str, command: Command, tmp_path: Path) -> None:
    quiet = [override for override in SMALL if override != "logger=none"]
    words = [*quiet, "logger.wandb.mode=offline", f"trainer.devices={devices}", *_launched_by(launcher)]
    done = command("train", "-m", *words, fresh=True)
    assert done.returncode == 0, done.stderr
    found = _jobs(tmp_path)
    assert [job["world_size"] for job in found] == devices.split(",")
    if devices not in ("2", "2,2"):
        assert [job["overrides"] for job in found] == [f"trainer.devices={count}" for count in devices.split(",")]
    (sweep,) = tmp_path.glob("runs/train/*")
    steps = [json.loads((sweep / job["folder"] / "results.json").read_text())["steps"] for job in found]
    assert steps == [8 // (2 * int(count)) for count in devices.split(",")]
    assert done.stdout.count("Sweep in ") == 1
    assert len(list(tmp_path.glob("runs/train/*"))) == 1, "no rank ran the sweep again"
    runs = [of_kind(sweep / job["folder"], "run")[0] for job in found]
    assert {run.run_group for run in runs} == {f"train/{sweep.name}"}
    assert len({run.run_id for run in runs}) == len(found), "a run a job, however many ranks it has"


@pytest.mark.exhaustive
def test_a_sweep_that_is_told_to_end_says_how_far_it_came(tmp_path: Path) -> None:
    long = [override for override in SMALL if not override.startswith("data.train_images")]
    process = start(tmp_path, "fastfcn_pl.train", "-m", *long, "data.train_images=4,2000", "trainer.devices=2",
                    "callbacks.last.every_n_steps=5", "hydra.sweep.dir=runs/train/told")  # fmt: skip
    assert wait(process, (tmp_path / "runs/train/told/1/checkpoints/last.ckpt").exists), process.communicate()
    os.kill(process.pid, signal.SIGTERM)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert "Traceback" not in stderr
    assert [job["status"] for job in _jobs(tmp_path)] == ["done", "failed: stopped by SIGTERM"]


@pytest.mark.slow
@pytest.mark.parametrize("devices", sample([1, 2], 1))
def test_optuna_goes_on_behind_a_job_that_failed(devices: int, command: Command, tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    small = [override for override in SMALL if override != "data.batch_size=2"]
    optuna = ["hydra/sweeper=optuna", "hydra.sweeper.n_trials=2", "hydra.sweeper.n_jobs=1"]
    optuna += ["hydra.sweeper.direction=maximize", "hydra/sweeper/sampler=grid"]
    words = [*small, f"trainer.devices={devices}", *optuna, "data.batch_size=choice(2,100)"]
    done = command("train", "-m", *words, fresh=devices > 1)
    found = _jobs(tmp_path)
    assert done.returncode == 1
    assert sorted(job["status"][:6] for job in found) == ["done", "failed"], done.stderr
    assert next(job["world_size"] for job in found if job["status"] == "done") == str(devices)


SEARCH = "lr_width_search"


@pytest.mark.slow
def test_the_search_over_learning_rate_and_width_composes(command: Command) -> None:
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    done = command("train", "-cn", SEARCH, "--cfg", "all")
    assert done.returncode == 0, done.stderr
    for line in (
        "mode: MULTIRUN",
        f"dir: runs/{SEARCH}\n",
        "optimizer.lr: tag(log",
        "model.neck.width: choice(64",
    ):
        assert line in done.stdout


@pytest.mark.exhaustive
def test_the_search_over_learning_rate_and_width_runs_and_goes_on(command: Command, tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    root = write_camvid(tmp_path / "CamVid", train=4, val=1)
    small = [override for override in TINY if not override.startswith("model.neck")]
    small += [f"data.root={root}", "data.batch_size=2", "data.num_workers=0", "data.augmentation.crop_size=48"]
    small += ["trainer.max_epochs=1", "trainer.check_val_every_n_epoch=1", "~callbacks.cost", "~callbacks.progress"]
    first = command("train", "-cn", SEARCH, *small, "hydra.sweeper.n_trials=1")
    assert first.returncode == 0, first.stderr
    second = command("train", "-cn", SEARCH, *small, "hydra.sweeper.n_trials=2")
    assert second.returncode == 0, second.stderr
    assert second.stdout.count("is done already") == 1
    with (tmp_path / "runs" / SEARCH / "sweep.csv").open(newline="") as file:
        jobs = list(csv.DictReader(file))
    assert [job["status"] for job in jobs] == ["done", "done"]
    tried = [dict(word.split("=") for word in job["overrides"].split()) for job in jobs]
    assert all(5e-5 <= float(trial["optimizer.lr"]) <= 2e-3 for trial in tried)
    assert tried[0] != tried[1]
    assert (tmp_path / "runs" / SEARCH / "optimization_results.yaml").is_file()


def test_a_heading_names_what_distinguishes_a_job(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["train", "-m", "data=camvid", "seed=0,1", "model/neck=jpu,fpn"])
    sweep.print_heading(3, ["data=camvid", "seed=1", "model/neck=fpn"])
    sweep.print_heading(0, ["data=camvid", *(f"model.part_{i}=1" for i in range(20))])
    first, second = capsys.readouterr().out.split("\n\n")
    assert first.strip() == f"{'=== job 3: seed=1 model/neck=fpn ':=<80}"
    assert len(second.strip()) == 80
    assert " ... ==" in second
