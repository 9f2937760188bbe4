"""Locks of a job's folder: other processes change nothing in the folder of a live run."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fastfcn_pl.core.types import UserError
from fastfcn_pl.engine import folder_claim
from fastfcn_pl.engine.folder_claim import Claim, alone
from tests.conftest import TINY
from tests.support.processes import start

SMALL = [*TINY, "data.train_images=40", "data.val_images=2", "data.size=64", "data.batch_size=2", "data.num_workers=0"]
SMALL += ["trainer.max_epochs=1", "~callbacks.cost", "~callbacks.progress", "callbacks.samples.count=1"]


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder_claim, "_LINGERING", 0.3)


def test_only_one_claims_a_folder(tmp_path: Path) -> None:
    first = Claim(tmp_path / "run")
    assert first.is_only_one()
    with pytest.raises(UserError, match="another process is at work in"):
        Claim(tmp_path / "run")
    other = Claim(tmp_path / "run", shared=True)
    assert not other.is_only_one(), "and it is not taken for the owner"
    first.end()
    Claim(tmp_path / "run").end()


def test_of_several_none_is_the_only_one(tmp_path: Path) -> None:
    first, second = Claim(tmp_path, shared=True), Claim(tmp_path, shared=True)
    assert not first.is_only_one()
    assert not second.is_only_one()
    second.end()
    assert first.is_only_one()
    first.end()


def test_a_folder_that_its_owner_removes_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder_claim, "_LINGERING", 5.0)
    first = Claim(tmp_path / "run")

    def leave() -> None:
        time.sleep(0.3)
        shutil.rmtree(tmp_path / "run")
        first.end()

    leaving = threading.Thread(target=leave)
    leaving.start()
    second = Claim(tmp_path / "run")
    leaving.join()
    assert os.path.samestat(os.stat(tmp_path / "run"), os.fstat(second._descriptor or 0))
    assert second.is_only_one()
    second.end()


def test_where_folders_cannot_be_locked_a_file_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on some network file systems."""
    flock = fcntl.flock

    def of_nfs(descriptor: int, kind: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{descriptor}"):
            raise OSError(9, "Bad file descriptor")
        flock(descriptor, kind)

    monkeypatch.setattr(folder_claim.fcntl, "flock", of_nfs)
    with alone(tmp_path) as claims:
        assert claims[0].is_only_one()
        with pytest.raises(UserError, match="another process"), alone(tmp_path):
            pass


def test_without_locks_jobs_run_and_nobody_is_sure_to_be_the_only_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(folder_claim.fcntl, "flock", none)
    with alone(tmp_path) as claims:
        assert not claims[0].is_only_one()


@pytest.mark.parametrize("kind", ["file", "long", "proc"])
def test_a_folder_that_cannot_be_made_is_one_line(kind: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    folder = {"file": tmp_path / "file", "long": tmp_path / ("x" * 5000), "proc": Path("/proc/nothing/run")}[kind]
    with pytest.raises(UserError, match=r"cannot be (written|made)"):
        Claim(folder)


def _state(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.slow
def test_a_second_start_leaves_the_first_ones_folder_as_it_is(
    command: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    """This holds for single runs and jobs of a sweep, also before the first one has written anything."""
    (tmp_path / "sweep" / "0" / ".hydra").mkdir(parents=True)
    (tmp_path / "sweep" / "0" / ".hydra" / "config.yaml").write_text("seed: 0\n")
    before = _state(tmp_path)
    with alone(tmp_path / "sweep" / "0"):
        done = command("train", *SMALL, "hydra.run.dir=sweep/0", "seed=1")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
    assert "another process is at work in" in done.stderr
    assert _state(tmp_path) == before
    with alone(tmp_path / "sweep"):
        done = command("train", "-m", *SMALL, "hydra.sweep.dir=sweep", "seed=1,2")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
    assert _state(tmp_path) == before


@pytest.mark.exhaustive
@pytest.mark.parametrize("time_", range(10))
@pytest.mark.parametrize(
    ("first", "second", "left"),
    [
        (["hydra.run.dir=run"], ["hydra.run.dir=run", "seed=7"], ["run"]),
        (["hydra.run.dir=run/0"], ["-m", "hydra.sweep.dir=run", "seed=0,1"], ["run/0", "run/1"]),
        (["-m", "hydra.sweep.dir=run", "seed=0,1"], ["-m", "hydra.sweep.dir=run", "seed=2,3"], ["run/0", "run/1"]),
    ],
    ids=["train and train", "train and sweep", "sweep and sweep"],
)
def test_of_two_that_start_together_one_waits_and_nothing_is_lost(
    first: list[str], second: list[str], left: list[str], time_: int, tmp_path: Path
) -> None:
    longer = [*SMALL, "data.train_images=1200"]  # than one waits for the other
    processes = [start(tmp_path, "fastfcn_pl.train", *more, *longer) for more in (first, second)]
    said = [process.communicate(timeout=300)[1] for process in processes]
    errors = [line for text in said for line in text.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, said
    assert "another process is at work in" in errors[0]
    assert "Traceback" not in "".join(said)
    for folder in left:
        assert {"results.json", "results.md", "confusion.csv", "confusion.png", ".hydra"} <= set(
            os.listdir(tmp_path / folder)
        )
