"""A server that forks commands, since their libraries take 10 seconds to import: `python -m tests.support.forked`.

A fork runs to the end of the interpreter as `python -m <command>` does. Environment variables that libraries read when
they are imported are the server's.
"""

from __future__ import annotations

import gc
import json
import os
import runpy
import signal
import sys
import tempfile
from importlib import import_module

_LIBRARIES = ("lightning", "timm", "torchvision", "torchmetrics.classification", "wandb", "cv2", "hydra.main", "rich")
_LIBRARIES += ("matplotlib.figure", "torch.utils.tensorboard", "scipy.stats")
"""Not this package, which looks at its process when it is imported."""


def serve() -> None:
    """Fork a command for each line of standard input."""
    for library in _LIBRARIES:
        import_module(library)
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those that wait
    for line in iter(sys.stdin.readline, ""):
        if os.fork() == 0:
            _start(**json.loads(line))
            return


def _start(command: list[str], folder: str, env: dict[str, str], files: list[str]) -> None:
    """Run the command in a fork, whose id is written to standard output; write its exit code to the last of `files`."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    # Opened before the caller hears of the process: it may forget it, and another file of its own gets the number.
    output, errors, code = (os.open(file, os.O_RDWR | os.O_APPEND) for file in files)
    if pid := os.fork():
        print(pid, flush=True)
        _, status = os.waitpid(pid, 0)
        os.write(code, str(os.waitstatus_to_exitcode(status)).encode())
        os._exit(0)
    os.setsid()
    for standard, file in enumerate([os.open(os.devnull, os.O_RDWR), output, errors]):
        os.dup2(file, standard)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(env)
    sys.path[:] = [folder, *env["PYTHONPATH"].split(os.pathsep), *sys.path]
    sys.argv = command
    _forget_the_server()
    runpy.run_module(command[0], run_name="__main__", alter_sys=True)


def _forget_the_server() -> None:
    """Set anew what libraries keep of the process that imports them."""
    from lightning.fabric.utilities.rank_zero import _get_rank, rank_zero_only
    from wandb.sdk.data_types._private import MEDIA_TMP

    rank_zero_only.rank = _get_rank() or 0
    tempfile.tempdir = None
    MEDIA_TMP._finalizer.detach()  # the first fork to end would remove the folder of all
    MEDIA_TMP.__init__("wandb-media")


if __name__ == "__main__":
    serve()
