"""End of the data workers of a run that fails."""

from __future__ import annotations

import time

import lightning as L
from torch.utils.data._utils.signal_handling import _error_if_any_worker_fails

from fastfcn_pl.data.workers import kill_workers
from fastfcn_pl.training.distributed import FAILED, note

_SECONDS_TO_DIE = 1.0
"""Time within which the kernel reports a worker whose connection is broken as dead."""


class EndWorkers(L.Callback):
    """Kill the workers of a run that an error ends: torch would wait for each of them, even for one that hangs.

    Rank 0 also tells the other ranks of its error.
    """

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        if trainer.is_global_zero:
            note(FAILED)
        _note_dead_worker(exception)
        kill_workers()


def _note_dead_worker(exception: BaseException) -> None:
    """Add to the error of a broken connection which worker died.

    A loader that cannot take a batch looks for dead workers at once, which may be before the kernel reports one.
    """
    deadline = time.monotonic() + _SECONDS_TO_DIE
    while isinstance(exception, (ConnectionError, EOFError)) and time.monotonic() < deadline:
        try:
            _error_if_any_worker_fails()
        except RuntimeError as failure:
            exception.add_note(str(failure))
            return
        time.sleep(0.02)
