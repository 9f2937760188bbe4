"""Seconds of commands that have little to do: `python -m tests.benchmarks.startup [experiments/speed/training.md]`.

The time until the first batch of a training stands in the section on the loop.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from PIL import Image

from fastfcn_pl.core.tables import markdown_table
from tests.benchmarks.measure import machine, medians
from tests.benchmarks.report import report
from tests.support.checkpoints import write_checkpoint

COMMANDS = {
    "train --help": 3.0,
    "train --cfg job": 4.0,
    "predict checkpoint=best.ckpt input=photo.png output=labels overwrite=true": 6.0,
}
"""Commands, and the seconds below which they have to stay."""


def run(arguments: Sequence[str], folder: str) -> None:
    """Run the command in a process of its own; it has to print something."""
    command, *others = arguments
    done = subprocess.run(
        [sys.executable, "-m", f"fastfcn_pl.{command}", *others], cwd=folder, check=True, capture_output=True
    )
    assert done.stdout


def main(file: str | None = None, rounds: int = 5) -> str:
    """Measure, print the table, and write it into `file`."""
    with tempfile.TemporaryDirectory() as folder:
        write_checkpoint(Path(folder) / "best.ckpt")
        Image.new("RGB", (480, 360)).save(Path(folder) / "photo.png")
        seconds = medians({command: partial(run, command.split(), folder) for command in COMMANDS}, rounds)
    rows = [
        [f"`python -m fastfcn_pl.{command}`", f"{seconds[command]:.1f}", f"{bar:.1f}"]
        for command, bar in COMMANDS.items()
    ]
    text = f"{machine()} Files are in the system's cache.\n\n{markdown_table(['', 's', 'to stay below'], rows)}"
    report(file, "Start", "python -m tests.benchmarks.startup", text)
    return text


if __name__ == "__main__":
    main(*sys.argv[1:2])
