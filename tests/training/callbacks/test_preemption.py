"""A run saves itself on a stop signal, and resumes when the same command is given again."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import torch

from tests.conftest import TINY
from tests.fakes.command import write_command
from tests.support.processes import Process, children_of, start, wait

pytestmark = pytest.mark.slow
TRAIN = "fastfcn_pl.train"
LONG = [*TINY, "data.train_images=2000", "data.val_images=2", "data.size=64", "data.batch_size=2", "data.num_workers=1"]
LONG += ["trainer.max_epochs=1", "callbacks.last.every_n_steps=50", "~callbacks.cost", "~callbacks.progress"]
LONG += ["hydra.run.dir=run", "checkpoint=auto"]


def _step(folder: Path) -> int:
    return torch.load(folder / "run" / "checkpoints" / "last.ckpt", weights_only=True)["global_step"]


@pytest.mark.parametrize(
    "told",
    ["the only rank", "rank 1", *(pytest.param(p, marks=pytest.mark.exhaustive) for p in ("rank 0", "the group"))],
)
def test_sigterm_saves_and_ends(told: str, tmp_path: Path) -> None:
    """This holds for a signal to any rank, and to the whole process group with its data workers."""
    process = start(tmp_path, TRAIN, *LONG, *([] if told == "the only rank" else ["trainer.devices=2"]))
    assert wait(process, (tmp_path / "run" / "checkpoints" / "last.ckpt").exists), process.communicate()
    heard = {"rank 1": children_of(process)[:1], "the group": [-process.pid]}.get(told, [process.pid])
    os.kill(heard[0], signal.SIGTERM)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert stderr.splitlines()[-1] == "SIGTERM: the run goes on with checkpoint=run/checkpoints/last.ckpt"
    assert stderr.count("SIGTERM") == 1
    assert "Traceback" not in stderr
    assert _step(tmp_path) % 50, "it saved when it was told to"


def test_ctrl_c_saves_and_says_how_to_go_on(tmp_path: Path) -> None:
    """A terminal sends the signal to the whole group, including workers."""
    process = start(tmp_path, TRAIN, *LONG)
    assert wait(process, (tmp_path / "run" / "checkpoints" / "last.ckpt").exists), process.communicate()
    os.killpg(process.pid, signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGINT
    again = "python -m fastfcn_pl.train checkpoint=run/checkpoints/last.ckpt"
    assert [line for line in stderr.splitlines() if line][-2:] == [
        "Ctrl-C: saving the run (press again to end without saving)",
        f"SIGINT: the run goes on with: {again}",
    ]
    assert _step(tmp_path) % 50, "it saved when it was told to"


def _is_of(group: int, stat: Path) -> bool:
    """Tell whether a process is in a group, and is not a zombie."""
    try:
        state, _, of, *_ = stat.read_text().rpartition(")")[2].split()
    except OSError:  # it has just ended
        return False
    return int(of) == group and state != "Z"


@pytest.mark.parametrize(
    ("accident", "line"),
    [
        ("a worker is killed", "error: a data worker (pid "),
        ("the folder is renamed", "error: {folder}/run/metrics/metrics.csv is gone: "),
    ],
)
def test_an_accident_is_one_line_and_leaves_no_process(accident: str, line: str, tmp_path: Path) -> None:
    process = start(tmp_path, TRAIN, *LONG)
    assert wait(process, (tmp_path / "run" / "checkpoints" / "last.ckpt").exists), process.communicate()
    if accident == "a worker is killed":
        os.kill(children_of(process)[0], signal.SIGKILL)
    else:
        (tmp_path / "run").rename(tmp_path / "other")
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == 1
    (error,) = [said for said in stderr.splitlines() if not said.startswith("train: ")]
    assert error.startswith(line.format(folder=tmp_path))
    assert not (tmp_path / "run" / "metrics").exists() or accident == "a worker is killed"
    assert [stat for stat in Path("/proc").glob("[0-9]*/stat") if _is_of(process.pid, stat)] == []


def test_slurm_requeues_a_run_which_goes_on_with_the_same_command(tmp_path: Path) -> None:
    """Two tasks have the variables that srun sets, and both receive the signal."""
    asked = write_command(tmp_path / "bin" / "scontrol")
    slurm = {"SLURM_JOB_ID": "4711", "SLURM_JOB_NAME": "train", "SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2"}
    slurm |= {"SLURM_NNODES": "1", "SLURM_NODEID": "0", "SLURM_NODELIST": "127.0.0.1"}
    slurm |= {"PATH": f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    command = [TRAIN, *LONG, "trainer.devices=2"]

    def srun(*more: str) -> list[Process]:
        tasks = ({"SLURM_PROCID": rank, "SLURM_LOCALID": rank} for rank in ("0", "1"))
        return [start(tmp_path, *command, *more, **slurm, **task) for task in tasks]

    tasks = srun()
    assert wait(tasks[0], (tmp_path / "run" / "checkpoints" / "last.ckpt").exists), tasks[0].communicate()
    for task in tasks:
        task.send_signal(signal.SIGUSR1)
    said = [task.communicate(timeout=60)[1] for task in tasks]
    assert [task.returncode for task in tasks] == [128 + signal.SIGUSR1] * 2, said
    assert said[0].splitlines()[-1].startswith("SIGUSR1: the run goes on")
    assert said[1] == "", "rank 0 alone prints"
    assert asked.read_text() == "requeue 4711\n"
    assert not list(tmp_path.rglob("hpc_ckpt*"))
    stopped = _step(tmp_path)

    tasks = srun()
    assert wait(tasks[0], lambda: _step(tmp_path) > stopped), tasks[0].communicate()
    for task in tasks:
        task.kill()
        task.wait()
    assert _step(tmp_path) == (stopped // 50 + 1) * 50, "it did not start anew"
    tasks = srun("optimizer.lr=0.5")
    said = [task.communicate(timeout=60)[1] for task in tasks]
    assert "configured otherwise (optimizer.lr: 0.01 then, 0.5 now)" in said[0]
    assert said[0].count("\n") == 1
    assert said[1] == ""


def test_auto_needs_a_folder_that_stays(command, tmp_path: Path) -> None:
    done = command("train", *TINY, "checkpoint=auto")
    assert done.returncode == 1
    assert "checkpoint=auto resumes from the run's folder" in done.stderr
    assert done.stderr.count("\n") == 1
