"""A page about runs, also while they go on: `python -m fastfcn_pl.report <run or sweep>... output=<dir>`.

Everything on it is read from the runs' folders, but for the section `What was learned` of its Markdown, which is a
person's: it is kept as it is when the page is written again.
"""

from __future__ import annotations

import sys
from pathlib import Path

from fastfcn_pl.core.types import UserError

_USAGE = "usage: python -m fastfcn_pl.report <run, sweep, folder of some, or study.yaml>... output=<dir>"


def main(arguments: list[str]) -> None:
    """Read the command line; exit with 1 and one line where it, or a run, does not serve."""
    outputs = [a.removeprefix("output=") for a in arguments if a.startswith("output=")]
    places = [Path(a) for a in arguments if not a.startswith("output=")]
    if len(outputs) != 1 or not places or any("=" in str(place) and not place.exists() for place in places):
        sys.exit(_USAGE)
    try:
        from fastfcn_pl.tools.report.page import write

        print(*write(places, Path(outputs[0])), sep="\n")
    except UserError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main(sys.argv[1:])
