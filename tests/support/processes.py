"""Runs in processes of their own, to be ended before they end by themselves."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tests.conftest import ROOT
from tests.support.forked import Fork


class Run(Fork):
    """A fork with what is asked of a `subprocess.Popen` here."""

    def __init__(self, command: Sequence[str], folder: Path, env: Mapping[str, str]) -> None:
        self._stderr = tempfile.NamedTemporaryFile("r")  # noqa: SIM115  # it goes with this object
        super().__init__(command, folder, env, (Path(os.devnull), Path(self._stderr.name)), leads=True)

    def communicate(self, timeout: float | None = None) -> tuple[None, str]:
        if self.wait(timeout) is None:
            raise subprocess.TimeoutExpired("the run", timeout or 0)
        return None, self._stderr.read()


def start(folder: Path, *command: str, fresh: bool = False, **env: str) -> Run | subprocess.Popen[str]:
    """Start `python -m <command>` in `folder`, as the leader of a process group; what it says is in its stderr.

    Where `fresh`, it is with an interpreter of its own, which takes 10 seconds more.
    """
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **env}
    if not fresh:
        return Run(command, folder, env)
    return subprocess.Popen(
        [sys.executable, "-m", *command],
        cwd=folder,
        env=env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait(process: Run | subprocess.Popen[str], reached: Callable[[], bool]) -> bool:
    """Wait until `reached` or until the process ended; return which."""
    while process.poll() is None:
        if reached():
            return True
        time.sleep(0.001)
    return False


def age(path: Path) -> int:
    return path.stat().st_mtime_ns if path.exists() else 0


def ranks_of(process: Run) -> list[int]:
    """Return the ids of the processes that `process` has started as further ranks: the server forks them, too."""
    server = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[1]
    forks = [int(fork) for fork in Path(f"/proc/{server}/task/{server}/children").read_text().split()]
    return [fork for fork in forks if fork != process.pid and os.getpgid(fork) == process.pid]
