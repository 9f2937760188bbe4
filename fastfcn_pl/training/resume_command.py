"""The command that a run which was stopped goes on with."""

from __future__ import annotations

import os
import shlex
import signal
import sys
from pathlib import Path

_OF_MACHINES = (signal.SIGTERM, signal.SIGUSR1)
"""Signals of a cluster, which gives the same command again; the others are a person's."""


def goes_on_by(path: str | Path, number: int) -> str:
    """Say how the run that is saved in `path` goes on after signal `number`."""
    if not os.path.exists(path):
        return "had not begun"
    checkpoint = f"checkpoint={shlex.quote(os.path.relpath(path))}"
    if number in _OF_MACHINES:
        return f"goes on with {checkpoint}"
    words = ["python", "-m", "fastfcn_pl.train", *map(shlex.quote, _needed_again(sys.argv[1:])), checkpoint]
    return f"goes on with: {' '.join(words)}"


def _needed_again(arguments: list[str]) -> list[str]:
    """Return what the checkpoint does not know: where the user's own options are, and what may be built of them."""
    needed: list[str] = []
    for i, word in enumerate(arguments):
        if word in ("-cd", "--config-dir"):
            needed += arguments[i : i + 2]
        elif word.startswith(("--config-dir=", "-cd=", "trust=", "+trust=")):
            needed.append(word)
    return needed
