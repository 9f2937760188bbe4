"""Seconds until a command prints something: `python -m tests.benchmarks.startup [experiments/speed/training.md]`."""

from __future__ import annotations

import subprocess
import sys
from functools import partial

from fastfcn_pl.core.tables import markdown_table
from tests.benchmarks.measure import machine, medians
from tests.benchmarks.report import report

COMMANDS = {("--help",): 3.0, ("--cfg", "job"): 4.0}
"""Arguments of `fastfcn_pl.train`, and the seconds below which they have to stay."""


def run(arguments: tuple[str, ...]) -> None:
    """Run the command in a process of its own; it has to print something."""
    command = [sys.executable, "-m", "fastfcn_pl.train", *arguments]
    assert subprocess.run(command, check=True, capture_output=True).stdout


def main(file: str | None = None, rounds: int = 5) -> str:
    """Measure, print the table, and write it into `file`."""
    seconds = medians({" ".join(arguments): partial(run, arguments) for arguments in COMMANDS}, rounds)
    rows = [
        [f"`python -m fastfcn_pl.train {' '.join(arguments)}`", f"{seconds[' '.join(arguments)]:.1f}", f"{bar:.1f}"]
        for arguments, bar in COMMANDS.items()
    ]
    text = f"{machine()} Files are in the system's cache.\n\n{markdown_table(['', 's', 'to stay below'], rows)}"
    report(file, "Start", "python -m tests.benchmarks.startup", text)
    return text


if __name__ == "__main__":
    main(*sys.argv[1:2])
