"""A restarted sweep keeps finished jobs and resumes stopped ones."""

from __future__ import annotations

import csv
import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from fastfcn_pl.config.plain_data import read_yaml
from fastfcn_pl.core.types import UserError
from fastfcn_pl.engine import folder_claim
from fastfcn_pl.engine.folder_claim import alone
from fastfcn_pl.engine.job_state import JobState, check_start, state_of
from tests.conftest import ROOT, TINY
from tests.support.processes import start, wait

SMALL = [*TINY, "data.train_images=400", "data.val_images=2", "data.size=64", "data.num_workers=0"]
SMALL += ["trainer.max_epochs=1", "callbacks.last.every_n_steps=5", "~callbacks.cost", "~callbacks.progress"]
SWEEP = ["-m", *SMALL, "hydra.sweep.dir=sweep", "data.batch_size=40,2,20"]
RECORDS = sorted((ROOT / "experiments").glob("*/records/*"))


def _table(folder: Path) -> list[dict[str, str]]:
    with (folder / "sweep" / "sweep.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_one_process_is_at_work_in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder_claim, "_LINGERING", 0.2)
    with alone(tmp_path):
        with alone(tmp_path / "another"):
            pass
        with pytest.raises(UserError, match="another process is at work in"), alone(tmp_path):
            pass
    with alone(tmp_path):
        pass


def test_a_job_of_an_earlier_version_is_the_same_job(tmp_path: Path, make_config: Any) -> None:
    """Its configuration lacks the keys that were added since; a value that changes what it computes is another job."""
    cfg = make_config("model/neck=fpn", f"run_dir={tmp_path}", "margin=2", "baseline='model/neck=jpu'")
    then = OmegaConf.to_container(cfg, resolve=False)
    for parent, key in (
        *((then, name) for name in ("warmup", "freeze", "match", "margin", "baseline")),
        *((then["optimizer"], name) for name in ("layer_decay", "decay_norm_and_bias")),
        *((then["model"]["neck"], name) for name in ("upsampler", "output_level")),
        (then["data"], "sampler"),
        (then["model"]["backbone"], "drop_path_rate"),
    ):
        del parent[key]
    (tmp_path / ".hydra").mkdir()
    OmegaConf.save(then, tmp_path / ".hydra" / "config.yaml")
    (tmp_path / "results.json").touch()
    assert state_of(cfg, tmp_path)[0] is JobState.DONE
    for key, value in (("warmup.steps", 5), ("model.neck.output_level", 2), ("optimizer.layer_decay", 0.7)):
        changed = cfg.copy()
        OmegaConf.update(changed, key, value)
        with pytest.raises(UserError, match="configured otherwise"):
            state_of(changed, tmp_path)


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: f"{record.parents[1].name} {record.name}")
def test_a_recorded_run_is_not_run_again(record: Path, tmp_path: Path, make_config: Any) -> None:
    overrides = read_yaml(record / ".hydra" / "overrides.yaml")
    cfg = make_config(*overrides, name=record.parents[1].name)
    run = shutil.copytree(record, cfg.run_dir)
    config = Path(run, ".hydra", "config.yaml")
    config.write_text(config.read_text().replace("${hydra:runtime.output_dir}", run))
    assert state_of(cfg, Path(run))[0] is JobState.DONE


@pytest.mark.parametrize(
    ("kept", "state"),
    [
        ([], JobState.NOT_TRAINED),
        (["checkpoints/last.ckpt"], JobState.STOPPED),
        (["checkpoints/last.ckpt", "results.json"], JobState.DONE),
    ],
)
def test_how_far_a_job_came(kept: list[str], state: JobState, tmp_path: Path) -> None:
    cfg = OmegaConf.create(
        {
            "run_dir": str(tmp_path),
            "checkpoint": None,
            "resume": "auto",
            "question": "Why?",
            "optimizer": {"lr": 1e-4},
            "of": "${run_dir}",
        }
    )
    (tmp_path / ".hydra").mkdir()
    OmegaConf.save(
        {**cfg, "resume": None, "question": "Why so?", "of": "${run_dir}"}, tmp_path / ".hydra" / "config.yaml"
    )
    for name in kept:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert state_of(cfg, tmp_path) == (state, tmp_path / "checkpoints" / "last.ckpt")
    cfg.optimizer.lr = 2e-4
    if state is JobState.NOT_TRAINED:
        assert state_of(cfg, tmp_path)[0] is state, "nothing came of it, and it may be configured anew"
        return
    with pytest.raises(
        UserError, match=r"configured otherwise \(optimizer.lr: 0.0001 then, 0.0002 now\): take another"
    ):
        state_of(cfg, tmp_path)


@pytest.mark.parametrize(
    ("keys", "line"),
    [
        ({"checkpoint": "last", "resume": "auto"}, "checkpoint=last would name another run at the next start"),
        ({"checkpoint": "auto"}, "checkpoint=auto is now resume=auto"),
        ({"checkpoint": "a.ckpt", "resume": "last"}, "leave one out"),
    ],
)
def test_a_training_has_one_start(keys: dict[str, str], line: str) -> None:
    with pytest.raises(UserError, match=line):
        check_start(OmegaConf.create({"checkpoint": None, "resume": None, **keys}))


@pytest.mark.parametrize(
    "keys",
    [{}, {"checkpoint": "a.ckpt"}, {"checkpoint": "last"}, {"resume": "last"}, {"resume": "auto", "checkpoint": "a"}],
)
def test_starts_of_a_training(keys: dict[str, str]) -> None:
    check_start(OmegaConf.create({"checkpoint": None, "resume": None, **keys}))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (
            "a: &a [x, x, x, x, x, x, x, x, x, x]\n"
            + "".join(f"{b}: &{b} [{', '.join([f'*{a}'] * 10)}]\n" for a, b in zip("abcdefg", "bcdefgh", strict=True)),
            "larger, or nested deeper",
        ),
        ("a: " + "x" * 5 * 2**20, "more than 4 MiB"),
        ("[1, 2]", "no mapping"),
        ("{a: b: c}", "while parsing"),
    ],
    ids=["aliases", "a large file", "a list", "not YAML"],
)
def test_a_configuration_that_cannot_be_read_is_one_line(content: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "last.ckpt").touch()
    (tmp_path / ".hydra").mkdir()
    (tmp_path / ".hydra" / "config.yaml").write_text(content)
    with pytest.raises(UserError, match=rf"config.yaml cannot be read \(.*{reason}"):
        state_of(OmegaConf.create({"run_dir": str(tmp_path)}), tmp_path)


@pytest.mark.exhaustive
def test_a_killed_sweep_resumes(command: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path) -> None:
    jobs = [tmp_path / "sweep" / str(number) for number in range(3)]
    process = start(tmp_path, "fastfcn_pl.train", *SWEEP)
    assert wait(process, (jobs[1] / "checkpoints" / "last.ckpt").exists), process.communicate()
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert [(job / "results.json").exists() for job in jobs] == [True, False, False]
    made = (jobs[0] / "results.json").stat().st_mtime_ns
    config = (jobs[0] / ".hydra" / "config.yaml").stat().st_mtime_ns

    done = command("train", *SWEEP)
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith("job ")]
    assert [line.partition("(")[0] for line in lines] == ["job 0 ", "job 1 "]
    assert lines[0].endswith("in sweep/0 is done already")
    assert lines[1].endswith("in sweep/1 was stopped, and resumes")
    assert (jobs[0] / "results.json").stat().st_mtime_ns == made
    first = _table(tmp_path)
    assert [job["status"] for job in first] == ["done"] * 3
    assert all(float(job["time"]) > 1 for job in first)
    with (jobs[1] / "metrics" / "metrics.csv").open(newline="") as file:
        steps = [int(row["step"]) for row in csv.DictReader(file) if row["train/loss"]]
    assert steps == sorted(set(steps)), "what was logged before the kill is there once"

    other = command("train", *SWEEP, "optimizer.lr=0.5")
    assert other.returncode == 1
    refused = [line for line in other.stderr.splitlines() if line.startswith("error: job ")]
    assert len(refused) == 3
    assert all("configured otherwise (optimizer.lr: 0.01 then, 0.5 now): take another folder" in r for r in refused)
    assert (jobs[0] / ".hydra" / "config.yaml").stat().st_mtime_ns == config, "what was done is left as it was"
    assert [job["status"][:6] for job in _table(tmp_path)] == ["failed"] * 3

    restarted = command("train", *SWEEP)
    assert restarted.returncode == 0, restarted.stderr
    assert restarted.stdout.count("is done already") == 3
    assert _table(tmp_path) == first, "with the time that each took"
