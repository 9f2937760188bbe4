"""List of commands: `fastfcn`, or `python -m fastfcn_pl`. With the name of one, `fastfcn train ...` runs it."""

from __future__ import annotations

import os
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path

from fastfcn_pl.core.program_name import VARIABLE
from fastfcn_pl.engine.usage import COMMANDS, answer, listing, unknown


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command that comes first, or list all of them; the arguments are those of the process by default."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    os.environ[VARIABLE] = "fastfcn " if Path(sys.argv[0]).stem == "fastfcn" else "python -m fastfcn_pl "
    if (text := answer(words)) is not None:
        print(text)
    elif words[:1] == ["-sc"]:
        print(*COMMANDS)  # a shell completes the command's name
    elif not words or words[0] in ("-h", "--help", "help"):
        print(listing())
    elif (command := words[0]) in COMMANDS:
        sys.argv = words
        runpy.run_module(f"fastfcn_pl.{command}", run_name="__main__", alter_sys=True)
    else:
        sys.exit(f"error: {unknown(command)}")


if __name__ == "__main__":
    main()
