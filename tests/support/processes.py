"""Commands in processes of their own: for signals, ranks and what imports read."""

from __future__ import annotations

import functools
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from subprocess import PIPE, CompletedProcess, TimeoutExpired
from tempfile import TemporaryFile

from fastfcn_pl.engine.frozen_job import FLAG
from tests.conftest import ROOT


class Process:
    """A command as the leader of a process group, forked by `tests.support.forked`; it is used as a `Popen`."""

    def __init__(self, folder: Path, command: Sequence[str], env: Mapping[str, str]) -> None:
        self._files = [TemporaryFile("r") for _ in range(3)]  # noqa: SIM115  # they go with this object
        self.returncode: int | None = None
        files = [f"/proc/{os.getpid()}/fd/{file.fileno()}" for file in self._files]
        server = _server()
        assert server.stdin is not None
        assert server.stdout is not None
        request = {"command": list(command), "folder": str(folder), "env": dict(env), "files": files}
        print(json.dumps(request), file=server.stdin, flush=True)
        self.pid = int(server.stdout.readline())

    def poll(self) -> int | None:
        code = None if self.returncode is not None else self._files[2].read()
        if code:
            self.returncode = int(code)
        return self.returncode

    def wait(self, timeout: float = 300) -> int:
        deadline = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > deadline:
                os.killpg(self.pid, signal.SIGKILL)
                raise TimeoutExpired(str(self.pid), timeout, *self.said())
            time.sleep(0.01)
        assert self.returncode is not None
        return self.returncode

    def communicate(self, timeout: float = 300) -> tuple[str, str]:
        self.wait(timeout)
        return self.said()

    def said(self) -> tuple[str, str]:
        """Return its standard output and error up to now."""
        texts = [os.pread(file.fileno(), os.fstat(file.fileno()).st_size, 0).decode() for file in self._files[:2]]
        return texts[0], texts[1]

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


@functools.cache
def _server() -> subprocess.Popen[str]:
    """Return the server of this process, which ends with it."""
    words, env = [sys.executable, "-m", "tests.support.forked"], {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(words, cwd=ROOT, env=env, stdin=PIPE, stdout=PIPE, text=True, start_new_session=True)


def start(folder: Path, *command: str, **env: str) -> Process:
    """Start `python -m <command>` in `folder`, as the leader of a process group."""
    return Process(folder, command, {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **env})


def run(command: Sequence[str], folder: Path, env: Mapping[str, str] = os.environ) -> CompletedProcess[str]:
    """Run `python -m <command>` in `folder` and return what it said."""
    path = os.pathsep.join([*filter(None, [env.get("PYTHONPATH")]), str(ROOT)])
    process = Process(folder, command, {**env, "PYTHONPATH": path})
    return CompletedProcess(list(command), process.wait(), *process.said())


def wait(process: Process, reached: Callable[[], bool], timeout: float = 300) -> bool:
    """Wait until `reached`, or until the process ended or was ended for its time; return whether it was reached."""
    deadline = time.monotonic() + timeout
    while process.poll() is None:
        if reached():
            return True
        if time.monotonic() > deadline:
            os.killpg(process.pid, signal.SIGKILL)
            break
        time.sleep(0.001)
    return False


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def age(path: Path) -> int:
    return path.stat().st_mtime_ns if path.exists() else 0


def children_of(process: Process) -> list[int]:
    """Return the ids of the processes that `process` has started: further ranks, and workers."""
    return [int(child) for child in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


def ranks_of(process: Process) -> list[int]:
    """Return the ids of the further ranks that `process` has started."""
    return [child for child in children_of(process) if FLAG.encode() in Path(f"/proc/{child}/cmdline").read_bytes()]
