"""A command killed at a change it makes to the disk: `python -m tests.support.killed <n> <folder> <command>`."""

from __future__ import annotations

import os
import runpy
import signal
import sys
from pathlib import Path
from typing import Any

_CHANGES = {"os.rename": 1, "os.remove": 0, "os.truncate": 0, "os.mkdir": 0}
"""Events that change a folder, and which of their arguments is the file."""


def kill_at(number: int, folder: Path) -> None:
    """Have the kernel kill this process just before it changes something in `folder` for the `number`-th time.

    Files are opened to be written, renamed, removed and made: before each of them the disk holds another state.
    """
    left = number
    inside = f"{folder.resolve()}{os.sep}"

    def hear(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal left
        if event == "open":
            name, _, flags = arguments
            if not flags & (os.O_WRONLY | os.O_RDWR):
                return
        elif event in _CHANGES:
            name = arguments[_CHANGES[event]]
        else:
            return
        if not isinstance(name, (str, bytes, os.PathLike)):
            return
        if os.path.abspath(os.fsdecode(name)).startswith(inside):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hear)


if __name__ == "__main__":
    _, change, folder, module, *_ = sys.argv
    kill_at(int(change), Path(folder))
    sys.argv = sys.argv[3:]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
