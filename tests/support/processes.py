"""Commands in processes of their own, which take seconds to start: for signals, ranks and what imports read."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from fastfcn_pl.engine.frozen_job import FLAG
from tests.conftest import ROOT

Process = subprocess.Popen[str]


def run(command: Sequence[str], folder: Path, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run `python -m <command>` in `folder` and return what it said."""
    env = dict(os.environ if env is None else env)
    env["PYTHONPATH"] = os.pathsep.join([*filter(None, [env.get("PYTHONPATH")]), str(ROOT)])
    words = [sys.executable, "-m", *command]
    return subprocess.run(words, cwd=folder, env=env, capture_output=True, text=True, timeout=900)


def start(folder: Path, *command: str, **env: str) -> Process:
    """Start `python -m <command>` in `folder`, as the leader of a process group; what it says is in its stderr."""
    return subprocess.Popen(
        [sys.executable, "-m", *command],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **env},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait(process: Process, reached: Callable[[], bool]) -> bool:
    """Wait until `reached` or until the process ended; return which."""
    while process.poll() is None:
        if reached():
            return True
        time.sleep(0.001)
    return False


def age(path: Path) -> int:
    return path.stat().st_mtime_ns if path.exists() else 0


def children_of(process: Process) -> list[int]:
    """Return the ids of the processes that `process` has started: further ranks, and workers."""
    return [int(child) for child in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


def ranks_of(process: Process) -> list[int]:
    """Return the ids of the further ranks that `process` has started."""
    return [child for child in children_of(process) if FLAG.encode() in Path(f"/proc/{child}/cmdline").read_bytes()]
