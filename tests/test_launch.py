"""The command line: quick to answer, and one line for a mistake."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fastfcn_pl import launch, ranks
from fastfcn_pl.contracts import UserError
from fastfcn_pl.mistakes import one_line
from tests.conftest import ROOT, TINY
from tests.fakes.camvid import write_camvid
from tests.fakes.command import write_command

Command = Callable[..., subprocess.CompletedProcess[str]]


def test_torch_is_not_imported_before_the_config_is_known_good() -> None:
    code = (
        "import sys, fastfcn_pl.train, fastfcn_pl.evaluate; print({'torch', 'lightning', 'wandb'} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "set()\n"


def test_help_lists_groups_and_keys(command: Command) -> None:
    done = command("train", "--help")
    assert done.returncode == 0
    assert "model/neck: " in done.stdout
    assert "batch_size" in done.stdout


@pytest.mark.parametrize("arguments", [[], ["-cd", str(ROOT / "experiments")]], ids=["anywhere", "by its folder"])
def test_a_study_is_found(command: Command, arguments: list[str]) -> None:
    done = command("train", *arguments, "-cn", "quickstart", "--cfg", "job", "data.size=64")
    assert done.returncode == 0, done.stderr
    assert "name: test_resnet" in done.stdout
    assert "size: 64" in done.stdout


@pytest.mark.parametrize(
    ("argument", "line"),
    [
        ("sead=1", "sead: no such key; did you mean seed?"),
        ("model.neck.widht=1", "model.neck.widht: no such key; did you mean width?"),
        ("loss.terms.cross_entropy.wieght=1", "loss.terms.cross_entropy.wieght: no such key; did you mean weight?"),
        ("model/neck=jup", "Could not find 'model/neck/jup'"),
        ("-cn=quickstrat", "-cn quickstrat: no such study (-cd <folder> adds your own); did you mean quickstart?"),
        ("seed=abc", "could not be converted to Integer"),
    ],
)
def test_a_mistake_on_the_command_line_is_one_line(command: Command, argument: str, line: str) -> None:
    done = command("train", argument)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert line in done.stderr


def test_a_typo_in_a_study_is_one_line(command: Command, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("defaults: [train, _self_]\ntrainer: {max_epoch: 3}\n")
    done = command("train", "-cd", str(tmp_path), "-cn", "mine")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: trainer.max_epoch: lightning.Trainer has no such parameter")
    assert "Traceback" not in done.stderr
    debug = command("train", "-cd", str(tmp_path), "-cn", "mine", "+debug=true")
    assert "Traceback" in debug.stderr


def test_a_missing_root_says_how_to_get_the_data(command: Command) -> None:
    done = command("train", "data=ade20k", "data.root=nowhere")
    assert done.returncode == 1
    assert "error: data.root=nowhere is not a folder: run python -m fastfcn_pl.prepare data=ade20k" in done.stderr


def test_a_workers_error_is_the_message_without_its_traceback() -> None:
    wrapped = UserError(
        "Caught UserError in DataLoader worker process 0.\nOriginal Traceback ...\nUserError: a.png is bad\n"
    )
    assert one_line(wrapped) == "a.png is bad"


@pytest.mark.parametrize(("parents", "said"), [([7, 7], "error: bad mask\n"), ([7, 7, 1], "")])
def test_a_child_speaks_only_where_rank_0_has_not_met_the_error(
    parents: list[int], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its parent's id changes when rank 0 ends."""
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr(ranks, "_PARENT", 7)
    monkeypatch.setattr(ranks, "GRACE", 0.15)
    monkeypatch.setattr(ranks.os, "getppid", lambda: parents.pop(0) if len(parents) > 1 else parents[0])
    with pytest.raises(SystemExit) as end:
        launch._end(UserError("bad mask"))
    assert end.value.code == 1
    assert capsys.readouterr().err == said


def test_a_name_of_two_lines_is_still_one_line() -> None:
    assert one_line(UserError("a\nb\x85c.png is missing")) == "a b c.png is missing"


def test_a_bug_is_not_hidden() -> None:
    assert one_line(ZeroDivisionError("division by zero")) is None
    bug = KeyError("x")
    bug.__context__ = UserError("met on the way")
    assert one_line(bug) is None


def test_what_cannot_be_built_is_named(command: Command) -> None:
    done = command("train", *TINY, "data.batch_size=abc")
    assert done.returncode == 1
    line = done.stderr.strip().splitlines()[-1]
    assert line.startswith("error: data cannot be built: TypeError: ")
    assert line.endswith("(+debug=true shows where)")


@pytest.mark.slow
def test_a_sweep_runs_its_jobs_and_says_which_failed(command: Command, tmp_path: Path) -> None:
    small = ["data.train_images=4", "data.val_images=2", "data.num_workers=0", "trainer.max_epochs=1"]
    done = command("train", "-m", *TINY, *small, "data.batch_size=2,100,4")
    assert done.returncode == 1
    assert "error: job 1 (" in done.stderr
    assert "fewer than data.batch_size=100" in done.stderr
    assert "Traceback" not in done.stderr
    (sweep,) = (tmp_path / "runs" / "train").iterdir()
    assert sorted(path.parent.name for path in sweep.glob("*/results.json")) == ["0", "2"]
    assert [job["status"].partition(":")[0] for job in _jobs(tmp_path)] == ["done", "failed", "done"]


SMALL = [*TINY, "data.train_images=8", "data.val_images=2", "data.size=64", "data.num_workers=0"]
SMALL += ["data.batch_size=2", "trainer.max_epochs=1", "~callbacks.cost", "~callbacks.progress"]


def _jobs(tmp_path: Path) -> list[dict[str, str]]:
    (file,) = tmp_path.glob("runs/train/*/sweep.csv")
    assert file.with_suffix(".md").read_text().count("\n") == 2 + file.read_text().count("\n") - 1
    with file.open(newline="") as content:
        return list(csv.DictReader(content))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("launcher", "devices"),
    [
        ("basic", "1,2"),
        ("submitit_local", "2,1"),
        *(pytest.param("basic", d, marks=pytest.mark.exhaustive) for d in ("2,1", "2,2")),
        *(pytest.param("joblib", d, marks=pytest.mark.exhaustive) for d in ("1,2", "2,1")),
        pytest.param("ray", "1,2", marks=pytest.mark.exhaustive),
    ],
)
def test_each_job_of_a_sweep_has_its_own_ranks(launcher: str, devices: str, command: Command, tmp_path: Path) -> None:
    if launcher != "basic":
        pytest.importorskip(f"hydra_plugins.hydra_{launcher.removesuffix('_local')}_launcher")
    extra = [f"hydra/launcher={launcher}", *(["hydra.launcher.n_jobs=2"] if launcher == "joblib" else [])]
    done = command("train", "-m", *SMALL, f"trainer.devices={devices}", *extra)
    assert done.returncode == 0, done.stderr
    found = _jobs(tmp_path)
    assert [job["world_size"] for job in found] == devices.split(",")
    if devices != "2,2":
        assert [job["overrides"] for job in found] == [f"trainer.devices={count}" for count in devices.split(",")]
    (sweep,) = tmp_path.glob("runs/train/*")
    steps = [json.loads((sweep / job["folder"] / "results.json").read_text())["steps"] for job in found]
    assert steps == [8 // (2 * int(count)) for count in devices.split(",")]
    assert done.stdout.count("world_size") == 1
    assert len(list(tmp_path.glob("runs/train/*"))) == 1, "no rank ran the sweep again"


@pytest.mark.slow
def test_optuna_goes_on_behind_a_job_that_failed(command: Command, tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    small = [override for override in SMALL if override != "data.batch_size=2"]
    optuna = ["hydra/sweeper=optuna", "hydra.sweeper.n_trials=2", "hydra.sweeper.n_jobs=1"]
    optuna += ["hydra.sweeper.direction=maximize", "hydra/sweeper/sampler=grid"]
    done = command("train", "-m", *small, "trainer.devices=2", *optuna, "data.batch_size=choice(2,100)")
    found = _jobs(tmp_path)
    assert done.returncode == 1
    assert sorted(job["status"][:6] for job in found) == ["done", "failed"], done.stderr
    assert next(job["world_size"] for job in found if job["status"] == "done") == "2"


SEARCH = "lr_width_search"


def test_the_search_over_learning_rate_and_width_composes(command: Command) -> None:
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    done = command("train", "-cn", SEARCH, "--cfg", "all")
    assert done.returncode == 0, done.stderr
    for line in (
        "mode: MULTIRUN",
        "dir: runs/${hydra.job.config_name}\n",
        "optimizer.lr: tag(log",
        "model.neck.width: choice(64",
    ):
        assert line in done.stdout


@pytest.mark.slow
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


def test_the_batch_file_for_slurm_gives_a_command_that_composes(command: Command, tmp_path: Path) -> None:
    """It is run with a `srun` that notes its arguments."""
    noted = write_command(tmp_path / "bin" / "srun")
    script = ROOT / "experiments" / "train.sbatch"
    env = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "DATA": "/data", "SLURM_JOB_ID": "4711"}
    subprocess.run(["bash", str(script), "seed=1"], check=True, env=env)
    words = noted.read_text().split()
    assert words[:4] == ["--kill-on-bad-exit=1", "python", "-m", "fastfcn_pl.train"]
    done = command("train", *words[4:], "--cfg", "all")
    assert done.returncode == 0, done.stderr
    for line in ("root: /data/ADEChallengeData2016", "seed: 1", "num_nodes: 2", "dir: runs/ade20k/4711"):
        assert line in done.stdout
    asked = dict(re.findall(r"^#SBATCH --([\w-]+)=(\S+)", script.read_text(), re.MULTILINE))
    assert (asked["nodes"], asked["ntasks-per-node"]) == ("2", "4")
    assert f"devices: {asked['ntasks-per-node']}\n" in done.stdout
