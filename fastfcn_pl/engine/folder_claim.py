"""Locks on the folders of a job: one process at a time trains there."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from fastfcn_pl.core.atomic_io import disk_errors_reported
from fastfcn_pl.core.types import UserError

LOCK = ".lock"
"""A file in a job's folder, on disks that do not lock folders."""
_LINGERING = 10.0
"""Seconds to wait for a process that is about to end."""


class Claim:
    """This process's lock on the folder of a job. It ends with the process, however that ends."""

    def __init__(self, folder: Path, *, shared: bool = False) -> None:
        """Wait a little for another process; raises UserError if it stays, or if the folder cannot be made.

        A `shared` claim waits for nobody, and others may have one, too.
        """
        self.folder = folder
        self._descriptor: int | None = None
        kind, end = (fcntl.LOCK_SH if shared else fcntl.LOCK_EX), time.monotonic() + _LINGERING
        with disk_errors_reported(folder):
            while True:
                _make(folder)
                try:
                    self._descriptor = _lock(folder, kind)
                    return
                except (BlockingIOError, FileNotFoundError) as error:  # not found: removed by its owner
                    if shared:
                        return
                    if time.monotonic() > end:
                        raise UserError(
                            f"another process is at work in {folder}: wait until it ends, or end it"
                        ) from error
                    time.sleep(0.1)

    def is_only_one(self) -> bool:
        """Tell whether no other process has claimed the folder; False if its disk has no locks."""
        if self._descriptor is None:
            return False
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            with suppress(OSError):
                fcntl.flock(self._descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)  # asking for more has released it
            return False
        return True

    def end(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileNotFoundError as error:  # as below /proc
        raise UserError(f"{folder} cannot be made ({error.strerror}): take another folder") from error


def _lock(folder: Path, kind: int) -> int | None:
    """Return the descriptor that locks `folder`, None if its disk has no locks; raises BlockingIOError if it is taken.

    NFS locks files that are open for writing, not folders.
    """
    for path, flags in ((folder, os.O_RDONLY), (folder / LOCK, os.O_RDWR | os.O_CREAT)):
        descriptor = os.open(path, flags)
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
            if not os.path.samestat(os.stat(path), os.fstat(descriptor)):
                raise BlockingIOError  # another process has replaced it
            return descriptor
        except OSError as error:
            os.close(descriptor)
            if isinstance(error, (BlockingIOError, FileNotFoundError)):
                raise
    return None


@contextmanager
def alone(*folders: Path, shared: bool = False) -> Iterator[list[Claim]]:
    """Keep other processes from the job in `folders`; raises UserError if one is already at work there."""
    with ExitStack() as ends:
        claims = []
        for folder in sorted(set(folders)):  # in one order, so that no two wait for each other
            claims.append(Claim(folder, shared=shared))  # each is released if the next one fails
            ends.callback(claims[-1].end)
        yield claims
