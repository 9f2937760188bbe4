"""End of a command that failed: one line for a mistake of the user, a traceback for anything else."""

from __future__ import annotations

import re
import sys
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode

from fastfcn_pl.core import redaction
from fastfcn_pl.core.program_name import as_called
from fastfcn_pl.engine import help_page, startup_messages, sweep
from fastfcn_pl.engine.error_messages import one_line
from fastfcn_pl.training.distributed import SPOKE, is_rank_0, loss_of_rank, note, noted, rank_0_ends


def end(error: Exception) -> NoReturn:
    """Print the error in one line and exit; raise it again if it is not a mistake of the user."""
    if is_rank_0() and loss_of_rank(error) and noted(SPOKE, unknown=False):
        sys.exit(1)
    if not is_rank_0():
        if rank_0_ends():
            sys.exit(1)
        note(SPOKE)
    line = one_line(error)
    job = _job_of_sweep()
    if job is not None:
        cause = line or f"{type(error).__name__}: {' '.join(str(error).split())}"
        with suppress(FileNotFoundError):  # the error may be that the folder is gone
            Path(str(job.runtime.output_dir), sweep.ERROR).write_text(f"{redaction.hide(cause)}\n")
    if line is None or any(re.fullmatch(r"\+*debug=(true|1)", argument.lower()) for argument in sys.argv[1:]):
        raise error
    if job is None and help_page.explains(error):
        print(help_page.page(Path(sys.argv[0]).stem, sys.argv[1:]), end="\n\n", flush=True)
    say(line if job is None else f"job {job.job.num} ({job.job.override_dirname}): {line}")
    sys.exit(1)


def _job_of_sweep() -> HydraConf | None:
    job = HydraConfig.get() if HydraConfig.initialized() and not startup_messages.shows(sys.argv) else None
    return job if job is not None and job.mode is RunMode.MULTIRUN else None


def say(line: str) -> None:
    print(f"error: {as_called(line)}", file=sys.stderr)
