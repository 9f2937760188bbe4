"""A run that is told to end saves, and resumes when the same command is given again."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.conftest import TINY
from tests.fakes.command import write_command
from tests.support.grids import sample
from tests.support.processes import Process, children_of, ranks_of, start, wait

pytestmark = pytest.mark.slow
TRAIN = "fastfcn_pl.train"
Command = Callable[..., subprocess.CompletedProcess[str]]
LONG = [*TINY, "data.train_images=2000", "data.val_images=2", "data.size=64", "data.batch_size=2", "data.num_workers=1"]
LONG += ["trainer.max_epochs=1", "callbacks.last.every_n_steps=20", "~callbacks.cost", "~callbacks.progress"]
LONG += ["hydra.run.dir=run", "resume=auto"]
JOB = str(10_000 + os.getpid() % 10_000)
"""Id of a job of SLURM, which decides the port where its tasks meet: another for each process of tests."""


def _step(folder: Path) -> int:
    return torch.load(folder / "run" / "checkpoints" / "last.ckpt", weights_only=True)["global_step"]


ACCIDENTS = """
import os, signal
import lightning as L

class Accident(L.Callback):
    def __init__(self, *, kind):
        self.kind = kind

    def on_train_batch_end(self, trainer, *args):
        if trainer.global_step == 5:
            os.kill(os.getpid(), signal.SIGTERM) if self.kind == "SIGTERM" else os.rename("run", "other")
"""


def _meets(accident: str, folder: Path) -> list[str]:
    """Return the overrides of a run in `folder` that meets an accident after its fifth step."""
    (folder / "accidents.py").write_text(ACCIDENTS)
    return [*LONG, "+callbacks.accident._target_=accidents.Accident", f"+callbacks.accident.kind={accident}"]


def test_sigterm_saves_and_ends(command: Command, tmp_path: Path) -> None:
    done = command("train", *_meets("SIGTERM", tmp_path))
    _assert_saved(done.returncode, done.stderr)
    assert _step(tmp_path) in (5, 6)


@pytest.mark.parametrize("told", sample(["rank 1", "rank 0", "the group"], "rank 1"))
def test_sigterm_of_any_rank_ends_all(told: str, tmp_path: Path) -> None:
    """The process group also holds data workers."""
    process = start(tmp_path, TRAIN, *LONG, "trainer.devices=2")
    assert wait(process, (tmp_path / "run" / "checkpoints" / "last.ckpt").exists), process.communicate()
    heard = {"rank 0": process.pid, "rank 1": ranks_of(process)[0], "the group": -process.pid}[told]
    os.kill(heard, signal.SIGTERM)
    _, stderr = process.communicate(timeout=60)
    _assert_saved(process.returncode, stderr)
    assert _step(tmp_path) % 20, "it saved when it was told to"


def _assert_saved(code: int, stderr: str) -> None:
    assert code == 128 + signal.SIGTERM, stderr
    said = [line for line in stderr.splitlines() if line]
    assert said[-1] == "SIGTERM: the run can be resumed with resume=run/checkpoints/last.ckpt"
    assert stderr.count("SIGTERM") == 1
    assert "Traceback" not in stderr


def test_ctrl_c_saves_and_says_how_to_resume(tmp_path: Path) -> None:
    """A terminal sends it to the whole group, workers included."""
    process = start(tmp_path, TRAIN, *LONG)
    assert wait(process, (tmp_path / "run" / "checkpoints" / "last.ckpt").exists), process.communicate()
    os.killpg(process.pid, signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGINT
    again = "python -m fastfcn_pl.train resume=run/checkpoints/last.ckpt"
    assert [line for line in stderr.splitlines() if line][-2:] == [
        "Ctrl-C: saving the run (press again to end without saving)",
        f"SIGINT: the run is saved at step {_step(tmp_path)} and can be resumed with: {again}",
    ]
    assert _step(tmp_path) % 20, "it saved when it was told to"


def _is_of(group: int, stat: Path) -> bool:
    """Tell whether a process is in a group, and is not a zombie."""
    try:
        state, _, of, *_ = stat.read_text().rpartition(")")[2].split()
    except OSError:  # it has just ended
        return False
    return int(of) == group and state != "Z"


def test_a_folder_that_is_renamed_is_one_line(command: Command, tmp_path: Path) -> None:
    done = command("train", *_meets("renamed", tmp_path))
    assert done.returncode == 1
    (error,) = done.stderr.splitlines()
    assert error.startswith(f"error: {tmp_path}/run/metrics/metrics.csv is gone: ")
    assert not (tmp_path / "run" / "metrics").exists()


def test_a_worker_that_is_killed_is_one_line_and_leaves_no_process(tmp_path: Path) -> None:
    process = start(tmp_path, TRAIN, *LONG)
    assert wait(process, (tmp_path / "run" / "checkpoints" / "last.ckpt").exists), process.communicate()
    os.kill(children_of(process)[0], signal.SIGKILL)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == 1
    lines = [line for line in stderr.splitlines() if not line.startswith("train: ")]
    assert len(lines) == 1, stderr
    assert lines[0].startswith("error: a data worker (pid ")
    assert [stat for stat in Path("/proc").glob("[0-9]*/stat") if _is_of(process.pid, stat)] == []


def _srun(folder: Path, *more: str) -> list[Process]:
    """Start two tasks with the variables that srun sets."""
    slurm = {"SLURM_JOB_ID": JOB, "SLURM_JOB_NAME": "train", "SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2"}
    slurm |= {"SLURM_NNODES": "1", "SLURM_NODEID": "0", "SLURM_NODELIST": "127.0.0.1"}
    slurm |= {"PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    tasks = ({"SLURM_PROCID": rank, "SLURM_LOCALID": rank} for rank in ("0", "1"))
    return [start(folder, TRAIN, *LONG, "trainer.devices=2", *more, **slurm, **task) for task in tasks]


@pytest.mark.parametrize("resumed", sample([False, True], False))
def test_slurm_requeues_a_run_which_resumes_with_the_same_command(resumed: bool, tmp_path: Path) -> None:
    """Both tasks receive the signal."""
    asked = write_command(tmp_path / "bin" / "scontrol")
    tasks = _srun(tmp_path)
    assert wait(tasks[0], (tmp_path / "run" / "checkpoints" / "last.ckpt").exists), tasks[0].communicate()
    for task in tasks:
        task.send_signal(signal.SIGUSR1)
    said = [task.communicate(timeout=60)[1] for task in tasks]
    assert [task.returncode for task in tasks] == [128 + signal.SIGUSR1] * 2, said
    assert said[0].splitlines()[-1].startswith("SIGUSR1: the run can be resumed")
    assert said[1] == "", "rank 0 alone prints"
    assert asked.read_text() == f"requeue {JOB}\n"
    assert not list(tmp_path.rglob("hpc_ckpt*"))
    stopped = _step(tmp_path)
    if not resumed:
        return
    tasks = _srun(tmp_path)
    assert wait(tasks[0], lambda: _step(tmp_path) > stopped), tasks[0].communicate()
    for task in tasks:
        task.kill()
        task.wait()
    assert _step(tmp_path) == (stopped // 20 + 1) * 20, "it did not start anew"


@pytest.mark.exhaustive
def test_a_mistake_of_two_tasks_is_one_line(tmp_path: Path) -> None:
    said = [task.communicate(timeout=60)[1] for task in _srun(tmp_path, "optimizer.lr=-1", "trainer.max_epochs=x")]
    assert said[0].startswith("error: ")
    assert said[0].count("\n") == 1
    assert said[1] == ""


def test_auto_needs_a_folder_that_stays(command, tmp_path: Path) -> None:
    done = command("train", *TINY, "resume=auto")
    assert done.returncode == 1
    assert "resume=auto resumes from the run's folder" in done.stderr
    assert done.stderr.count("\n") == 1
