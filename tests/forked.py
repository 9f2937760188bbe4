"""Commands in processes that a server forks, which has imported torch and Lightning once.

Importing them takes 10 of the 15 seconds of a short command on a slow core, and the tests run some 200 of them.
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
from pathlib import Path

_LIBRARIES = ["lightning.pytorch", "torchvision", "cv2", "matplotlib.figure", "hydra"]
"""Not what looks at its process, or makes files for it, while it is imported: this package, W&B, and timm with it."""
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(_LIBRARIES)


def run(
    command: Sequence[str], folder: Path, env: Mapping[str, str], timeout: float
) -> subprocess.CompletedProcess[str]:
    """Run `python -m <command>` in `folder` and return what it said, as `subprocess.run` does.

    What is read from `env` while the libraries are imported has no effect, and limits of resources are not handed on.
    """
    with tempfile.TemporaryDirectory() as said:
        files = Path(said, "stdout"), Path(said, "stderr")
        process = _CONTEXT.Process(target=_run, args=(list(command), folder, dict(env), files))
        process.start()
        process.join(timeout)
        ended = process.exitcode
        if ended is None:
            process.kill()
            process.join()
        out, err = (file.read_text() if file.exists() else "" for file in files)
    if ended is None:
        raise subprocess.TimeoutExpired(command, timeout, out, err)
    return subprocess.CompletedProcess(list(command), ended, out, err)


def _run(command: list[str], folder: Path, env: dict[str, str], files: tuple[Path, Path]) -> None:
    """Become the command's process."""
    for standard, file in zip((1, 2), files, strict=True):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), standard)
    multiprocessing.set_start_method(None, force=True)  # the child's own is again the platform's
    os.environ.clear()
    os.environ.update(env)
    os.chdir(folder)
    sys.path[:0] = [str(folder), *filter(None, env.get("PYTHONPATH", "").split(os.pathsep))]
    sys.argv = list(command)
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
