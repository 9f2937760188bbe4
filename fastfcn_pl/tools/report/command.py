"""The command line of `report`."""

from __future__ import annotations

import sys
from pathlib import Path

from fastfcn_pl.core.program_name import as_called
from fastfcn_pl.core.types import UserError
from fastfcn_pl.engine import usage
from fastfcn_pl.engine.command_line import asks_for_help

_USAGE = "usage: python -m fastfcn_pl.report <run, sweep, folder of some, study.yaml or claim.yaml>... output=<dir>"
_HELP = f"""report: {usage.COMMANDS["report"].purpose}

  {usage.line("report")}

{_USAGE}
  <run>         a run's folder, finished or not; a sweep's; a folder of several; the YAML file of a study or claim
  output=<dir>  folder of the page, as HTML and Markdown; its section "What was learned" is yours to write"""


def report(arguments: list[str]) -> None:
    """Write the report that the command line asks for; a mistake in it or in a run is one line and exit code 1."""
    if (answer := usage.answer(arguments)) is not None:
        print(answer)
        return
    if asks_for_help(arguments):
        print(as_called(_HELP))
        return
    outputs = [a.removeprefix("output=") for a in arguments if a.startswith("output=")]
    paths = [Path(a) for a in arguments if not a.startswith("output=")]
    if len(outputs) != 1 or not paths or any("=" in str(path) and not path.exists() for path in paths):
        print(as_called(_HELP))
        sys.exit(f"error: {as_called(_USAGE)}")
    from fastfcn_pl.tools.report.page import write  # slow to import, so only after the command line was checked

    try:
        print(*write(paths, Path(outputs[0])), sep="\n")
    except UserError as error:
        sys.exit(as_called(f"error: {error}"))
