"""List of commands: `python -m fastfcn_pl`. With the name of one, `python -m fastfcn_pl train ...` runs it."""

from __future__ import annotations

import runpy
import sys

from fastfcn_pl.engine.usage import COMMANDS, listing, unknown


def main(arguments: list[str]) -> None:
    """Run the command that comes first, or list all of them."""
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(listing())
    elif (command := arguments[0]) in COMMANDS:
        sys.argv = arguments
        runpy.run_module(f"fastfcn_pl.{command}", run_name="__main__", alter_sys=True)
    else:
        sys.exit(f"error: {unknown(command)}")


if __name__ == "__main__":
    main(sys.argv[1:])
