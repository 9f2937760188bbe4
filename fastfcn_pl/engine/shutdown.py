"""Shutdown of a command with the right exit code, within seconds, and without leaving processes behind."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from fastfcn_pl.config.resolvers import KEPT
from fastfcn_pl.data.workers import kill_workers
from fastfcn_pl.training.distributed import is_rank_0
from fastfcn_pl.training.resume_command import how_to_resume

INTERRUPTED = 128 + signal.SIGINT
_CLEANUP_SECONDS = 8.0
"""Seconds that a failed command may take to clean up before it is ended by force."""


@contextmanager
def orderly() -> Iterator[None]:
    """End worker processes when the command is done, and end the command by force if it fails and then hangs."""
    code: object = 1
    try:
        yield
        code = 0
    except SystemExit as error:
        code = INTERRUPTED if isinstance(error.__context__, KeyboardInterrupt) else error.code  # Lightning exits with 1
        sys.exit(code)
    except KeyboardInterrupt:
        code = INTERRUPTED
        sys.exit(code)
    finally:
        kill_workers()
        if code:
            _exit_after(_CLEANUP_SECONDS, code if isinstance(code, int) else 1)


def stoppable(job: Callable[[DictConfig], Any], cfg: DictConfig) -> Any:
    """Run `job`. If a signal ends it, exit with the signal's code and print how to resume a training."""
    try:
        return job(cfg)
    except KeyboardInterrupt:
        if "resume" in cfg and is_rank_0():
            last = Path(cfg.run_dir, KEPT[-1])
            print(f"{signal.SIGINT.name}: the run {how_to_resume(last, signal.SIGINT)}", file=sys.stderr)
        raise
    except SystemExit as error:
        if type(error).__name__ == "SIGTERMException":  # Lightning would exit with 0
            sys.exit(128 + signal.SIGTERM)
        raise


def _exit_after(seconds: float, code: int) -> None:
    """Exit by force unless the process ends within `seconds`."""

    def force_exit() -> None:
        time.sleep(seconds)
        os._exit(code)

    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    threading.Thread(target=force_exit, daemon=True).start()
