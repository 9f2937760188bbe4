"""Commands in processes that a server forks, which has imported torch and Lightning once.

Importing them takes 10 of the 15 seconds of a short command on a slow core, and the tests run some 200 of them, which
start jobs of sweeps and ranks.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Mapping, Sequence
from functools import partial
from multiprocessing import forkserver, popen_forkserver
from pathlib import Path
from types import ModuleType
from typing import Any

from wandb.sdk.data_types._private import MEDIA_TMP

_LIBRARIES = ["lightning.pytorch", "timm", "wandb", "torchvision", "cv2", "matplotlib.figure", "hydra"]
"""Not this package, which looks at its process while it is imported."""
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(_LIBRARIES)
_Files = tuple[Path, Path]


class Fork(popen_forkserver.Popen):
    """The process of `python -m <command>` in `folder`, which writes to the ends of the files `said`.

    It is the `subprocess.Popen` that sweeps and Lightning take it for, and `leads` a process group, or is in the one of
    what starts it. What is read from `env` while the libraries are imported has no effect, and limits of resources are
    not handed on.
    """

    send_signal = popen_forkserver.Popen._send_signal

    def __init__(
        self, command: Sequence[str], folder: Path, env: Mapping[str, str], said: _Files, leads: bool = False
    ) -> None:
        group = 0 if leads else os.getpgrp()
        process = _CONTEXT.Process(target=_run, args=(list(command), folder, dict(env), said, group))
        main = sys.modules["__main__"]
        sys.modules["__main__"] = ModuleType("__main__")  # which the child would import otherwise
        try:
            super().__init__(process)
        finally:
            sys.modules["__main__"] = main


def run(
    command: Sequence[str], folder: Path, env: Mapping[str, str], timeout: float
) -> subprocess.CompletedProcess[str]:
    """Run `python -m <command>` in `folder` and return what it said, as `subprocess.run` does."""
    with tempfile.TemporaryDirectory() as said:
        files = Path(said, "stdout"), Path(said, "stderr")
        process = Fork(command, folder, env, files)
        ended = process.wait(timeout)
        if ended is None:
            process.kill()
            process.wait()
        out, err = (file.read_text() if file.exists() else "" for file in files)
    if ended is None:
        raise subprocess.TimeoutExpired(command, timeout, out, err)
    return subprocess.CompletedProcess(list(command), ended, out, err)


def _run(command: list[str], folder: Path, env: dict[str, str], said: _Files, group: int) -> None:
    """Become the command's process."""
    os.setpgid(0, group)
    for standard, file in zip((1, 2), said, strict=True):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND), standard)
    multiprocessing.set_start_method(None, force=True)  # the child's own is again the platform's
    _be_child_and_parent(said)
    os.environ.clear()
    os.environ.update(env)
    os.chdir(folder)
    sys.path[:0] = [str(folder), *filter(None, env.get("PYTHONPATH", "").split(os.pathsep))]
    sys.argv = list(command)
    MEDIA_TMP._finalizer.detach()  # a folder that W&B makes while it is imported: the server's
    MEDIA_TMP.__init__("wandb-media")  # type: ignore[misc]  # this process's
    code = None
    try:
        runpy.run_module(command[0], run_name="__main__", alter_sys=True)
    except SystemExit as error:
        code = error.code
    except BaseException:
        traceback.print_exc()
        code = 1
    # As where an interpreter ends: what the exception held is gone, then threads end, then runs what was registered.
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.exit(code)


def _be_child_and_parent(said: _Files) -> None:
    """Have the parent that asked for this process, instead of the server; fork what is started as `python -m`, too."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    os.register_at_fork(after_in_child=partial(setattr, os, "getppid", os.getppid))
    os.getppid = lambda: parent.pid if parent.is_alive() else 1
    forkserver._forkserver.ensure_running = lambda: None  # this process's server is, and it would start another one

    class Popen(subprocess.Popen):
        def __new__(cls, args: Any, *more: Any, **options: Any) -> Any:
            match args:
                case [sys.executable, "-m", *command] if not more and options.keys() <= {"env", "cwd"}:
                    return Fork(command, options.get("cwd") or Path.cwd(), options.get("env") or os.environ, said)
            return super().__new__(cls)

    subprocess.Popen = Popen
