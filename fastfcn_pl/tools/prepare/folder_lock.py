"""One process at a time in a folder: what starts meanwhile says so, and waits."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fastfcn_pl.core.atomic_io import DISK_ERRORS

NAME = ".prepare.lock"
_NO_LOCKS = {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Make `folder` and keep other processes that lock it waiting meanwhile; a folder that stays empty is removed.

    A process that is killed leaves its file there, but no lock. A folder that nobody may write to needs none.
    """
    new = [path for path in (folder, *folder.parents) if not path.exists()]
    descriptor = _lock(folder / NAME)
    try:
        yield
    finally:
        if descriptor is not None:
            (folder / NAME).unlink(missing_ok=True)  # while it is held: see `_is_current`
            os.close(descriptor)
        for path in new:
            with suppress(OSError):
                path.rmdir()  # of an empty one only


def _lock(path: Path) -> int | None:
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except FileNotFoundError:  # another process has just removed the empty folder
            continue
        except OSError as error:
            if error.errno in DISK_ERRORS:
                return None  # then nothing can be changed here, which is said when it has to be
            raise
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"another process prepares data in {path.parent}: waiting for its end", flush=True)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
        if _is_current(descriptor, path):
            return descriptor
        os.close(descriptor)


def _is_current(descriptor: int, path: Path) -> bool:
    """Return whether the open file is still the one of that name: who held it before removes it at the end."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
