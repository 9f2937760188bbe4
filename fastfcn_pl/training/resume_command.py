"""The command that resumes a run which was stopped."""

from __future__ import annotations

import os
import shlex
import signal
import sys
from pathlib import Path

from fastfcn_pl.core.program_name import as_called

_OF_MACHINES = (signal.SIGTERM, signal.SIGUSR1)
"""Signals of a cluster, which starts the same command again; the others come from a person."""


def how_to_resume(path: str | Path, number: int, step: int | None = None) -> str:
    """Return the end of the line "the run ..." after signal `number`, for a run that is saved in `path` at `step`."""
    if not os.path.exists(path):
        return "had not begun"
    resume = f"resume={shlex.quote(os.path.relpath(path))}"
    if number in _OF_MACHINES:
        return f"can be resumed with {resume}"
    words = [as_called("python -m fastfcn_pl.train"), *map(shlex.quote, _needed_again(sys.argv[1:])), resume]
    saved = "" if step is None else f"is saved at step {step} and "
    return f"{saved}can be resumed with: {' '.join(words)}"


def _needed_again(arguments: list[str]) -> list[str]:
    """Return the arguments that the checkpoint does not hold: the folder of the user's options, and `trust`."""
    needed: list[str] = []
    for i, word in enumerate(arguments):
        if word in ("-cd", "--config-dir"):
            needed += arguments[i : i + 2]
        elif word.startswith(("--config-dir=", "-cd=", "trust=", "+trust=")):
            needed.append(word)
    return needed
