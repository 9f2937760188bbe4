"""Runs in processes of their own, to be ended before they end by themselves."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.conftest import ROOT


def start(folder: Path, *command: str, **env: str) -> subprocess.Popen[str]:
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


def wait(process: subprocess.Popen[str], reached: Callable[[], bool]) -> bool:
    """Wait until `reached` or until the process ended; return which."""
    while process.poll() is None:
        if reached():
            return True
        time.sleep(0.001)
    return False


def age(path: Path) -> int:
    return path.stat().st_mtime_ns if path.exists() else 0


def ranks_of(process: subprocess.Popen[str]) -> list[int]:
    """Return the ids of the processes that `process` has started as further ranks."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return [int(child) for child in children if b"--job" in Path(f"/proc/{child}/cmdline").read_bytes()]
